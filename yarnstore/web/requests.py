"""The request bodies of the API.  Unknown fields are refused."""

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
    """A version to download or install."""

    version: Text | None = None  #: A version, a range or an alias; default: `latest`.
    variant: Text | None = None  #: The variant.
    force: bool = False  #: Accept a withdrawn version, and one that needs more memory.


class UpdateRequest(RequestBody):
    """An update of one model."""

    version: Text | None = None  #: The version to install, newer or older; default: the newest that fits.
    variant: Text | None = None  #: The variant to change to.
    to: Text | None = None  #: Install only versions in this range.
    major: bool = False  #: Allow a new major version.
    force: bool = False  #: Accept a version that needs more memory than this machine has.


class UpdateAllRequest(RequestBody):
    """An update of several models, or of all installed models."""

    models: list[Text] = []  #: The models; default: all.


class RollbackRequest(RequestBody):
    """A rollback."""

    version: Text | None = None  #: The version; default: the one that was installed before.


class LoginRequest(RequestBody):
    """A login with a token."""

    token: Text  #: The token of a login link, or the bearer token.


class PinRequest(RequestBody):
    """A pin."""

    spec: Text | None = None  #: A version, a range, or `:` and a variant; default: the installed version.


class DiffRequest(RequestBody):
    """Two versions to compare."""

    old: Text  #: The old version, as `MODEL[:VARIANT]@VERSION`.
    new: Text  #: The new version, or `@VERSION` of the same model.


class GcRequest(RequestBody):
    """What to keep; the settings apply for omitted fields."""

    #: How many of the newest versions of each model are kept.
    keep: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    #: Keep versions that were stored or used within this time, in seconds.
    keep_within_s: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    #: How long files are kept after their path was returned, in seconds.
    grace_s: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    #: Delete versions, the least recently used first, until the store takes at most so many bytes.
    max_size_bytes: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    #: Delete versions that were neither stored nor used within this time, in seconds.
    unused_s: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    repack: bool = False  #: Store older versions as deltas against the newest.


class FsckRequest(RequestBody):
    """A check of the store."""

    quick: bool = False  #: Do not read the contents of packs and files.
    repair: bool = False  #: Repair the problems that can be repaired.
    #: The share of the contents to read, such as 0.05, chosen at random; default: all.
    sample: Annotated[float, Meta(gt=0, le=1)] | None = None


class AutoUpdateRequest(RequestBody):
    """A change of the auto-update settings; omitted fields stay as they are."""

    enabled: bool  #: Whether models are checked.
    models: list[Text] = []  #: The models; default: all.
    policy: Literal["notify", "patch", "minor", "security"] | None = None  #: Which updates are installed.
    windows: list[Text] | None = None  #: The maintenance windows, such as `Sat,Sun 02:00-05:00`.
    jitter: Text | None = None  #: The longest random delay before a check, such as `30m`.


class RegistryRequest(RequestBody):
    """A registry to add."""

    name: Text  #: The name of the registry.
    url: Annotated[str, Meta(min_length=1, max_length=2000)]  #: The address, `https://` or `http://`.


Address = Annotated[str, Meta(min_length=1, max_length=2000)]


class MirrorsRequest(RequestBody):
    """The mirrors of a registry."""

    mirrors: list[Address]  #: The addresses, `https://` or `http://`, in the order in which they are tried.


class RemovedBody(RequestBody):
    """One removed version, as in `removed` of a RemoveResult."""

    version: Text  #: The version.
    variant: Text  #: The variant.
    #: The SHA-256 of its manifest, as `sha256:` and 64 hexadecimal digits.
    manifest: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$", max_length=71)]
    installed: bool = False  #: Whether it was installed.
    pinned: bool = False  #: Whether it was pinned.


class RestoreRequest(RequestBody):
    """What was removed: `removed` and `pin` of a RemoveResult."""

    removed: Annotated[list[RemovedBody], Meta(min_length=1, max_length=1000)]  #: The removed versions.
    pin: Text | None = None  #: The range or variant that the model was pinned to.


class ModelArguments(RequestBody):
    """One model, or all models."""

    model_id: Text | None = None  #: The id of the model; default: all models.


class OneModelArguments(RequestBody):
    """One model."""

    model_id: Text  #: The id of the model.


class ChangeArguments(RequestBody):
    """A model, and the version to install."""

    model_id: Text  #: The id of the model.
    version: Text | None = None  #: The version.
    wait: bool = True  #: Whether to respond when it is done; if false, at once with the job.


class AutoUpdateArguments(RequestBody):
    """Auto-update of one model, or of all models."""

    enabled: bool = True  #: Whether models are checked.
    model_id: Text | None = None  #: The id of the model; default: all models.
    policy: Literal["notify", "patch", "minor", "security"] | None = None  #: Which updates are installed.


def named_version(model: str, version: str | None) -> str:
    """Return the spec of a model and a version.  Raises: InvalidNameError, SpecError."""
    return str(Spec.parse(f"{parse_model_id(model)}@{version}" if version else parse_model_id(model)))


def version_spec(text: str, beside: str = "") -> str:
    """Return the spec of a version; a path is refused.  Raises: SpecError, UsageError."""
    spec = Spec.parse(beside.partition("@")[0] + text if text.startswith("@") else text)
    if spec.selector is None:
        raise UsageError(f"{text} does not name a version", hint="give MODEL@VERSION")
    return str(spec)
