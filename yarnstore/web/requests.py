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

    version: Text | None = None  #: A version, a range or an alias; without it the one that `latest` means.
    variant: Text | None = None  #: The variant.
    force: bool = False  #: Also what does not fit the application or this machine.


class UpdateRequest(RequestBody):
    """An update of one model."""

    version: Text | None = None  #: The version to install, newer or older; without it the newest that fits.
    variant: Text | None = None  #: The variant to change to.
    to: Text | None = None  #: A range to stay within.
    major: bool = False  #: Also across a major version.
    force: bool = False  #: Also what does not fit the application or this machine.


class UpdateAllRequest(RequestBody):
    """An update of several models, or of all that are installed."""

    models: list[Text] = []  #: The models; without any, all.


class RollbackRequest(RequestBody):
    """A rollback."""

    version: Text | None = None  #: The version; without it the one that was installed before.


class LoginRequest(RequestBody):
    """A login by a token."""

    token: Text  #: A token of one login, or the bearer token.


class PinRequest(RequestBody):
    """A pin."""

    spec: Text | None = None  #: A version, a range, or `:` and a variant; without it the installed version.


class DiffRequest(RequestBody):
    """Two versions to compare."""

    old: Text  #: The old version, as `MODEL[:VARIANT]@VERSION`.
    new: Text  #: The new version, or `@VERSION` of the same model.


class GcRequest(RequestBody):
    """What to keep; fields that are not given are as in the settings."""

    #: How many of the newest versions of each model stay.
    keep: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    #: Versions that were stored or used within so many seconds stay.
    keep_within_s: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    #: For how many seconds a version stays after its path was last given out.
    grace_s: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    #: The store is to take no more bytes on the disk: versions go, those used least recently first.
    max_size_bytes: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    #: Versions go that were not stored or used within so many seconds.
    unused_s: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    repack: bool = False  #: Whether older versions are stored as deltas against the newest.


class FsckRequest(RequestBody):
    """A check of the store."""

    quick: bool = False  #: Whether contents are left unread.
    repair: bool = False  #: Whether problems are repaired where that is possible.
    #: The share of the contents that is read, such as 0.05, chosen at random; without it all are read.
    sample: Annotated[float, Meta(gt=0, le=1)] | None = None


class AutoUpdateRequest(RequestBody):
    """A change of auto-update; fields that are not given stay."""

    enabled: bool  #: Whether models are checked.
    models: list[Text] = []  #: The models; without any, all.
    policy: Literal["notify", "patch", "minor", "security"] | None = None  #: Which updates are installed.
    windows: list[Text] | None = None  #: The maintenance windows, such as `Sat,Sun 02:00-05:00`.
    jitter: Text | None = None  #: The longest random delay before a check, such as `30m`.


class RegistryRequest(RequestBody):
    """A registry to add."""

    name: Text  #: The name of the registry.
    url: Annotated[str, Meta(min_length=1, max_length=2000)]  #: The address, `https://` or `http://`.


class ModelArguments(RequestBody):
    """One model, or all."""

    model_id: Text | None = None  #: The id of the model; without it all.


class OneModelArguments(RequestBody):
    """One model."""

    model_id: Text  #: The id of the model.


class ChangeArguments(RequestBody):
    """A model, and the version to install."""

    model_id: Text  #: The id of the model.
    version: Text | None = None  #: The version.
    wait: bool = True  #: Whether to answer when it is done; else at once, with the job.


class AutoUpdateArguments(RequestBody):
    """Auto-update of one model, or of all."""

    enabled: bool = True  #: Whether models are checked.
    model_id: Text | None = None  #: The id of the model; without it all.
    policy: Literal["notify", "patch", "minor", "security"] | None = None  #: Which updates are installed.


def named_version(model: str, version: str | None) -> str:
    """The spec of a model and a version.  Raises: InvalidNameError, SpecError."""
    return str(Spec.parse(f"{parse_model_id(model)}@{version}" if version else parse_model_id(model)))


def version_spec(text: str, beside: str = "") -> str:
    """The spec of a version, which is no path.  Raises: SpecError, UsageError."""
    spec = Spec.parse(beside.partition("@")[0] + text if text.startswith("@") else text)
    if spec.selector is None:
        raise UsageError(f"{text} does not name a version", hint="give MODEL@VERSION")
    return str(spec)
