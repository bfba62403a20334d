"""Addresses of models elsewhere: `hf://org/name@main`, `ollama://llama3.2:1b`, `docker://HOST/NAME:TAG`.

Owns their grammar, and the record of where each tool keeps its models, which `settings/tools` fills.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from yarnstore.backends.urls import is_loopback, shown
from yarnstore.errors import UsageError
from yarnstore.store.filepath import Path

# How the names of each tool are written, for errors.
_FORMS: Final = {
    "hf": "hf://ORG/NAME[@REVISION]",
    "ollama": "ollama://[HOST/][NAMESPACE/]MODEL[:TAG]",
    "lmstudio": "lmstudio://PUBLISHER/MODEL[/FILE]",
}
# An OCI image layout, as skopeo writes it: oci:FOLDER[:TAG].
_OCI: Final = "oci:"
# A repository of a registry, in the grammar of the distribution specification.  A host has a dot or a port,
# or is localhost, since others are names on Docker Hub in other tools.
_PART: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE: Final = re.compile(
    r"docker(?:\+(https?))?://"
    r"((?:localhost|(?=[^/]*[.:])(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]))(?::[0-9]{1,5})?)"
    rf"/({_PART}(?:/{_PART})*)(?::([A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})|@(sha256:[0-9a-f]{{64}}))?"
)
_IMAGE_FORM: Final = "docker://HOST[:PORT]/NAME[:TAG|@sha256:HEX]"
_IMAGE_LIMIT_CHARS: Final = 600
_HUB: Final = ("docker.io", "index.docker.io")
_HUB_SERVER: Final = "registry-1.docker.io"


class ToolFolders(msgspec.Struct, frozen=True):
    """The folders in which other tools keep their models."""

    hf: Path
    ollama: Path
    lmstudio: Path

    def of(self, kind: str) -> Path:
        """Return the folder of one tool; an address of an OCI layout has the path itself."""
        found: Path = getattr(self, kind, Path("."))
        return found


class Address(msgspec.Struct, frozen=True):
    """A model in another tool: the tool, the model's name there, and a revision or tag if one is given.

    Of a registry of images (`docker`), the name is the host, a slash, and the name there.
    """

    kind: str
    name: str
    revision: str = ""
    scheme: str = ""  # `http` or `https` if a registry is to be asked that way

    @property
    def is_digest(self) -> bool:
        """Whether the revision is the digest of a manifest in a registry."""
        return self.kind == "docker" and ":" in self.revision

    @property
    def repository(self) -> tuple[str, str]:
        """Return the host of a registry, and the name there."""
        host, _, name = self.name.partition("/")
        return host, f"library/{name}" if host in _HUB and "/" not in name else name

    @property
    def url(self) -> str:
        """Return the address of a repository by the distribution API; http for this machine alone."""
        host, name = self.repository
        usual = "http" if is_loopback(re.sub(r":\d+$", "", host)) else "https"
        return f"{self.scheme or usual}://{_HUB_SERVER if host in _HUB else host}/v2/{name}/"

    def __str__(self) -> str:
        if self.kind == "docker":
            plus = f"+{self.scheme}" if self.scheme else ""
            mark = "" if not self.revision else "@" if self.is_digest else ":"
            return f"docker{plus}://{self.name}{mark}{self.revision}"
        mark = {"hf": "@", "lmstudio": ""}.get(self.kind, ":")
        begin = "oci:" if self.kind == "oci" else f"{self.kind}://"
        return f"{begin}{self.name}{mark if self.revision else ''}{self.revision}"


def parse_address(text: str) -> Address | None:
    """Return the address in a text; None if the text is a path or an address of another kind.

    Raises: UsageError if it has no name, or one that would lead out of the tool's folder.
    """
    if text.startswith(_OCI) and not text.startswith(f"{_OCI}//"):
        name, colon, tag = text.removeprefix(_OCI).rpartition(":")
        if colon and not set(tag) & set("/\\"):
            return Address("oci", name, tag)
        return Address("oci", text.removeprefix(_OCI))
    kind, mark, rest = text.partition("://")
    if mark and kind.partition("+")[0] == "docker":
        return _parse_image(text)
    if not mark or kind not in _FORMS:
        _refuse_without_slashes(text)
        return None
    name, revision = rest, ""
    if kind == "hf":
        name, _, revision = rest.partition("@")
    elif kind == "ollama":
        head, slash, last = rest.rpartition("/")
        last, _, revision = last.partition(":")
        name = f"{head}{slash}{last}"
    parts = [*name.split("/"), *(revision.split("/") if revision else [])]
    if not all(_is_plain(part) for part in parts):
        raise UsageError(f"{text[:120]!r} is not {_FORMS[kind]}", hint=f"give {_FORMS[kind]}")
    return Address(kind, name, revision)


def _refuse_without_slashes(text: str) -> None:
    """Refuse `hf:org/name` and `oci://folder`, which would be the path of a folder of that name."""
    kind, colon, rest = text.partition(":")
    slashes = rest.startswith("//")
    forms = {"oci": "oci:FOLDER[:TAG]"} if slashes else {**_FORMS, "docker": _IMAGE_FORM}
    form = forms.get(kind.partition("+")[0]) if colon else None
    if form is not None:
        path = "" if slashes else f", or ./{text[:120]} for a path"
        raise UsageError(f"{text[:120]!r} is not {form}", hint=f"give {form}{path}")


def _parse_image(text: str) -> Address:
    match = _IMAGE.fullmatch(text) if len(text) <= _IMAGE_LIMIT_CHARS else None
    if match is None:
        bare = shown(text)
        if bare != text:
            raise UsageError(
                "the address of an image has no user, password, query or fragment",
                hint=f"give {bare[:120]}; log in with `docker login`, or by a line of netrc",
            )
        raise UsageError(
            f"{text[:120]!r} is not {_IMAGE_FORM}",
            hint="give the host of the registry and a name in lower case, as in docker://docker.io/ai/smollm2",
        )
    scheme, host, name, tag, digest = match.groups()
    return Address("docker", f"{host}/{name}", tag or digest or "", scheme or "")


def _is_plain(part: str) -> bool:
    """Whether a part of a name can be a file name in the tool's folder, and nothing else."""
    return bool(part) and part not in (".", "..") and part.isprintable() and not set(part) & set('\\:*?"<>|')
