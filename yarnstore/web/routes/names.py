"""Names in paths: `~` stands for the `/` of a model id, as in the store."""

from __future__ import annotations

from typing import Annotated

from litestar.params import PathParameter, QueryParameter

from yarnstore.core.names import model_from_dirname, parse_variant, read_version
from yarnstore.registry.spec import Spec

Segment = Annotated[str, PathParameter(description="The id of the model, with `~` for `/`.", max_length=140)]
Version = Annotated[str | None, QueryParameter(max_length=200, description="The version.")]
Variant = Annotated[str | None, QueryParameter(max_length=100, description="The variant.")]


def model_in(segment: str) -> str:
    """Return the model id of a path segment.  Raises: InvalidNameError."""
    return model_from_dirname(segment)


def spec_in(model: str, version: str | None = None, variant: str | None = None) -> str:
    """Return the spec of a path's model and a query's version and variant.

    Raises: InvalidNameError, SpecError.
    """
    named = f":{parse_variant(variant)}" if variant else ""
    selected = f"@{version}" if version else ""
    return str(Spec.parse(f"{model_in(model)}{named}{selected}"))


def exact_spec_in(model: str, version: str, variant: str | None = None) -> str:
    """Return the same as `spec_in` for an exact version.  Raises: InvalidNameError."""
    return spec_in(model, read_version(version), variant)
