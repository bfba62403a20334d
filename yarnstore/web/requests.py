"""The bodies that the API reads.  What is not known is refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from yarnstore.core.names import parse_model_id
from yarnstore.errors import UsageError
from yarnstore.registry.spec import Spec

Text = Annotated[str, Meta(min_length=1, max_length=300)]


class RequestBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A JSON object."""


class VersionRequest(RequestBody):
    """A version to download or to install."""

    version: Text | None = None  # or a range, or an alias; the one that `latest` means without it
    variant: Text | None = None
    force: bool = False  # also what does not fit the application or this machine


class UpdateRequest(RequestBody):
    """An update of one model."""

    to: Text | None = None  # a range to stay within
    major: bool = False  # also across a major version
    force: bool = False


class UpdateAllRequest(RequestBody):
    """An update of several models, or of all that are installed."""

    models: list[Text] = []


class RollbackRequest(RequestBody):
    """A rollback; without a version to the one before."""

    version: Text | None = None


class LoginRequest(RequestBody):
    """A login by a token."""

    token: Text


class PinRequest(RequestBody):
    """A pin; without a spec, of the installed version."""

    spec: Text | None = None  # a version, a range, or `:` and a variant


class DiffRequest(RequestBody):
    """Two versions, each as `MODEL[:VARIANT]@VERSION`; `new` may be `@VERSION` of the same model."""

    old: Text
    new: Text


class GcRequest(RequestBody):
    """What to keep; what is not given is as the settings have it."""

    keep: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    keep_within_s: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    grace_s: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    repack: bool = False


class FsckRequest(RequestBody):
    """A check of the store; `quick` leaves contents unread, `repair` repairs what it can."""

    quick: bool = False
    repair: bool = False


class AutoUpdateRequest(RequestBody):
    """A change of auto-update, of the models named or of all."""

    enabled: bool
    models: list[Text] = []
    policy: Literal["notify", "patch", "minor", "security"] | None = None
    windows: list[Text] | None = None
    jitter: Text | None = None


class RegistryRequest(RequestBody):
    """A registry to add."""

    name: Text
    url: Annotated[str, Meta(min_length=1, max_length=2000)]


class ModelArguments(RequestBody):
    """One model, or all."""

    model_id: Text | None = None


class OneModelArguments(RequestBody):
    """One model."""

    model_id: Text


class ChangeArguments(RequestBody):
    """A model and the version to install; with `wait` false the answer is the job."""

    model_id: Text
    version: Text | None = None
    wait: bool = True


class AutoUpdateArguments(RequestBody):
    """Auto-update of one model, or of all."""

    enabled: bool = True
    model_id: Text | None = None
    policy: Literal["notify", "patch", "minor", "security"] | None = None


def named_version(model: str, version: str | None) -> str:
    """The spec of a model and a version.  Raises: InvalidNameError, SpecError."""
    return str(Spec.parse(f"{parse_model_id(model)}@{version}" if version else parse_model_id(model)))


def version_spec(text: str, beside: str = "") -> str:
    """The spec of a version, which is no path.  Raises: SpecError, UsageError."""
    spec = Spec.parse(beside.partition("@")[0] + text if text.startswith("@") else text)
    if spec.selector is None:
        raise UsageError(f"{text} names no version", hint="give MODEL@VERSION")
    return str(spec)
