"""Addresses of models in other tools: `hf://org/name@main`, `ollama://llama3.2:1b`.

Owns their grammar, and the record of where each tool keeps its models, which `settings/tools` fills.
"""

from __future__ import annotations

from typing import Final

import msgspec

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
    """A model in another tool: the tool, the model's name there, and a revision or tag if one is given."""

    kind: str
    name: str
    revision: str = ""

    def __str__(self) -> str:
        mark = {"hf": "@", "lmstudio": ""}.get(self.kind, ":")
        begin = "oci:" if self.kind == "oci" else f"{self.kind}://"
        return f"{begin}{self.name}{mark if self.revision else ''}{self.revision}"


def parse_address(text: str) -> Address | None:
    """Return the address in a text; None if the text is a path or an address of another kind.

    Raises: UsageError if it has no name, or one that would lead out of the tool's folder.
    """
    if text.startswith(_OCI) and not text.startswith(f"{_OCI}//"):
        name, colon, tag = text.removeprefix(_OCI).rpartition(":")
        return (
            Address("oci", name, tag) if colon and "/" not in tag else Address("oci", text.removeprefix(_OCI))
        )
    kind, mark, rest = text.partition("://")
    if not mark or kind not in _FORMS:
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


def _is_plain(part: str) -> bool:
    """Whether a part of a name can be a file name in the tool's folder, and nothing else."""
    return bool(part) and part not in (".", "..") and part.isprintable() and not set(part) & set('\\:*?"<>|')
