"""The error tree.  Everything this package raises on purpose is a `YarnstoreError`.

    YarnstoreError
    ├── UsageError            the request is malformed
    │   ├── InvalidNameError  a model id, variant, version, ref or path is malformed
    │   ├── SpecError         `MODEL[:VARIANT][@VERSION]` is malformed
    │   └── ConfigError       config.toml or an environment variable is unusable
    ├── NotFoundError         no such model, version, registry, file …
    │   └── NoRegistryError   no registry is configured to look in
    ├── ConflictError         it already exists with different content
    ├── IntegrityError        bytes do not match their digest
    │   └── FormatError       bytes do not follow their format
    ├── IncompatibleError     a version, format or machine does not fit
    │   └── PolicyError       `[policy]` in config.toml does not allow a version
    ├── SelfCheckError        what was installed failed its verify_command
    ├── BackendError          a registry or mirror could not be read
    │   ├── TransientError    … and trying again may help
    │   ├── MissingKeyError   … because it has no such file
    │   ├── OfflineError      … because --offline is set
    │   └── RolledBackError   … because its index is older than last time
    ├── StorageError          the local disk cannot be read or written
    │   ├── DiskFullError
    │   └── ReadOnlyError
    ├── LockTimeoutError      another process is using the store
    └── CancelledError        the user stopped it

Fields come first and the message is built from them: what happened, to which thing;
`hint` says what to do next.  Format parsers raise `FormatError` or `IntegrityError` only.
Foreign exceptions are translated where they enter: in `backends` and in `store/fsio`.
`cli/exitcodes.py` maps these classes to exit codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

TransientReason = Literal["stalled", "unreachable", "broken", "busy"]


class YarnstoreError(Exception):
    """Base of every error raised on purpose.

    `code` is a stable word for programs; `hint` is what to do next, or empty;
    `fields` are the facts that the message was built from, JSON-ready.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields: dict[str, object] = fields

    def as_dict(self) -> dict[str, object]:
        """The error as the JSON object that `--json` prints."""
        return {**self.fields, "code": self.code, "message": self.message, "hint": self.hint}

    @classmethod
    def restore(cls, code: str, message: str, hint: str, fields: Mapping[str, object]) -> YarnstoreError:
        """The error of another process: of the class of this tree that has `code`, else of this class."""
        kind = next((found for found in _tree(YarnstoreError) if found.code == code), cls)
        error = kind.__new__(kind)
        YarnstoreError.__init__(error, message, hint=hint)
        error.fields.update(fields)
        if kind.code != code:
            vars(error)["code"] = code
        vars(error).update({name: fields[name] for name in ("url", "status") if name in fields})
        return error


def _tree(kind: type[YarnstoreError]) -> Iterator[type[YarnstoreError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


# How names of each kind are written.
_SHAPES = {
    "application version": "for example 1.4.0",
    "version": "for example 1.4.0, 2.0.0-beta.1 or 1.4.0+cpu",
    "model id": "for example phi-3-mini or org/phi-3-mini",
    "variant": "for example cpu-int4",
    "registry name": "for example yarn",
    "window": "days and times, for example 'Sat,Sun 02:00-05:00', 'Mon-Fri 22:00-06:00' or 02:00-05:00",
    "duration": "for example 90s, 30m, 2h or 1d",
    "time": "for example 30m, 2h, 30d or 4w",
}


class UsageError(YarnstoreError):
    code = "usage"


class InvalidNameError(UsageError):
    """A malformed name; `what` says which kind of name it is."""

    code = "bad-name"

    def __init__(self, what: str, name: str, why: str) -> None:
        shown = name if len(name) <= 80 else name[:77] + "…"
        hint = _SHAPES.get(what, "")
        super().__init__(f"{what} {shown!r} {why}", hint=hint, what=what, name=shown, why=why)


class SpecError(UsageError):
    code = "bad-spec"

    def __init__(self, spec: str, why: str, *, message: str = "") -> None:
        shown = spec if len(spec) <= 120 else spec[:117] + "…"
        super().__init__(
            message or f"cannot read {shown!r}: {why}",
            hint="a spec is MODEL[:VARIANT][@VERSION|@RANGE|@ALIAS], for example phi-3-mini@1.1.0",
            spec=shown,
            why=why,
        )


class ConfigError(UsageError):
    code = "bad-config"

    def __init__(self, message: str, *, hint: str = "", **fields: object) -> None:
        super().__init__(
            message, hint=hint or "correct the setting, or remove it to use the default", **fields
        )


class NotFoundError(YarnstoreError):
    """`what` (model, version, registry, …) named `name` is not there; `near` are close names."""

    code = "not-found"

    def __init__(
        self,
        what: str,
        name: str,
        *,
        where: str = "",
        near: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        place = f" in {where}" if where else ""
        guess = f". Did you mean {' or '.join(near)}?" if near else ""
        super().__init__(
            f'no {what} "{name}"{place}{guess}',
            hint=hint,
            what=what,
            name=name,
            where=where,
            near=list(near),
        )


class NoRegistryError(NotFoundError):
    """No registry is configured, so that nothing can be looked up."""

    code = "no-registry"

    def __init__(self, hint: str = "") -> None:
        super().__init__("registry", "", hint=hint or "add one: ystore registry add NAME URL")
        self.message = "no registry is configured"
        self.args = (self.message,)


class ConflictError(YarnstoreError):
    code = "conflict"


class IntegrityError(YarnstoreError):
    """`what` does not have the expected digest."""

    code = "integrity"

    def __init__(
        self,
        what: str,
        *,
        expected: str = "",
        got: str = "",
        why: str = "",
        source: str = "",
        hint: str = "",
    ) -> None:
        reason = why or "does not match its digest"
        message = f"{what} {reason}"
        if expected and got:
            message += f"\n  expected {expected}   got {got}"
        if source:
            message += f"   from {source}"
        super().__init__(message, hint=hint, what=what, why=why, expected=expected, got=got, source=source)


class FormatError(IntegrityError):
    """Bytes that do not follow their format; `what` names the format, `why` the fault.

    `is_cut` is true where the file ends before what its own header says, as after a broken download.
    """

    code = "bad-format"
    is_cut: bool = False

    def __init__(
        self, what: str, why: str, *, source: str = "", hint: str = "", is_cut: bool = False
    ) -> None:
        super().__init__(what, why=why, source=source, hint=hint)
        self.is_cut = is_cut


class IncompatibleError(YarnstoreError):
    code = "incompatible"


class PolicyError(IncompatibleError):
    """`version` has files that `setting` of `[policy]` in config.toml refuses; `paths` are theirs."""

    code = "policy"

    def __init__(self, version: str, setting: str, why: str, *, paths: Sequence[str]) -> None:
        super().__init__(
            f"{version}: {why}; `{setting} = false` in config.toml refuses it",
            hint="use a variant in a format without code, such as safetensors, GGUF or ONNX; "
            f"or set `{setting} = true` under [policy] if you trust its publisher",
            version=version,
            setting=setting,
            why=why,
            paths=list(paths),
        )


class SelfCheckError(YarnstoreError):
    """The `verify_command` of a model refused `version`; `back_to` is installed now, None for nothing."""

    code = "self-check"

    def __init__(
        self, model: str, version: str, why: str, *, back_to: str | None = None, output: str = ""
    ) -> None:
        told = f"\n  {output}" if output else ""
        super().__init__(
            f"{model} {version} failed its self-check: {why}{told}",
            hint=f"rolled back: {model} {back_to} is installed"
            if back_to
            else f"undone: {model} is not installed",
            model=model,
            version=version,
            why=why,
            back_to=back_to,
            output=output,
        )


class BackendError(YarnstoreError):
    """A registry or mirror at `url` could not be read."""

    code = "network"
    url: str = ""
    status: int = 0

    def __init__(self, url: str, why: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(f"{url}: {why}", hint=hint, url=url, why=why, status=status)
        self.url = url
        self.status = status


class TransientError(BackendError):
    """A failure that may pass: a timeout, a reset, a short body, a 5xx answer.

    `reason` says which, for programs: "stalled" if no byte came for too long, "unreachable" if no
    connection came about, "busy" if the server asks for a pause, else "broken".
    """

    code = "network-transient"
    retry_after_s: float = 0.0
    reason: TransientReason = "broken"

    def __init__(
        self,
        url: str,
        why: str,
        *,
        hint: str = "",
        status: int = 0,
        retry_after_s: float = 0.0,
        reason: TransientReason = "broken",
    ) -> None:
        super().__init__(url, why, hint=hint, status=status)
        self.retry_after_s = retry_after_s
        self.reason = reason


class MissingKeyError(BackendError):
    """The registry answers, and has no such file."""

    code = "missing-file"


class OfflineError(BackendError):
    """`needed` would have to come over the network, which is not to be used."""

    code = "offline"

    def __init__(self, url: str, needed: str) -> None:
        super().__init__(
            url,
            f"{needed} is not downloaded and --offline is set",
            hint="run again without --offline (YSTORE_OFFLINE, `offline` in config.toml) to download it",
        )
        self.fields["needed"] = needed


class RolledBackError(BackendError):
    """The registry at `url` says that it was last updated at `now`, and has said a later time, `before`."""

    code = "rolled-back"

    def __init__(self, url: str, name: str, before: str, now: str) -> None:
        super().__init__(
            url,
            f"returned an older index than last time: updated {now}, last time {before}",
            hint="try again later, since a cache may be out of date; "
            f"if its publisher restored an older index: ystore registry refresh {name} --accept-rollback",
        )
        self.fields.update(registry=name, before=before, now=now)


class StorageError(YarnstoreError):
    code = "storage"


class DiskFullError(StorageError):
    code = "disk-full"


class ReadOnlyError(StorageError):
    code = "read-only"


class LockTimeoutError(YarnstoreError):
    """Somebody else holds the store; `who` names the processes, where known."""

    code = "locked"

    def __init__(self, path: str, waited_s: float, holders: Sequence[int]) -> None:
        who = f"process {', '.join(map(str, holders))}" if holders else "another process"
        super().__init__(
            f"the store is in use by {who}; waited {waited_s:.1f} s",
            hint="wait until it has finished, or set a longer --lock-timeout",
            path=path,
            waited_s=round(waited_s, 3),
            holders=list(holders),
        )
        self.who = who


class CancelledError(YarnstoreError):
    code = "interrupted"
