"""Reads the README of a stored version."""

from __future__ import annotations

from dataclasses import dataclass

from yarnstore.core.limits import KIB
from yarnstore.errors import NotFoundError
from yarnstore.ops.inspecting.readers import stored_contents, version_label
from yarnstore.ops.session.lookup import lookup
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import Stored
from yarnstore.registry.spec import Spec
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.native import quoted

# Longer texts are truncated.
LIMIT_BYTES = 256 * KIB
_NAMES = ("readme.md", "readme", "readme.txt", "model_card.md")


@dataclass(frozen=True)
class Readme:
    """The README of a version."""

    label: str  #: The model and version.
    path: str  #: The path within the version.
    text: str  #: The text, in Markdown if the path ends in `.md`.
    truncated: bool  #: Whether the file is longer.


def readme(session: Session, spec: Spec) -> Readme:
    """Read the README of a stored version.  Raises: NotFoundError, IntegrityError."""
    with session.layout.shared():
        found = lookup(session, spec)
        if not isinstance(found, Stored):
            raise NotFoundError(
                "stored version", str(spec), hint=f"download it: `ystore fetch {quoted(str(spec))}`"
            )
        manifest = found.manifest
        with ChunkStore(session.layout) as store:
            files = {content.path.lower(): content for content in stored_contents(manifest, store)}
            content = next((files[name] for name in _NAMES if name in files), None)
            if content is None:
                raise NotFoundError(
                    "README", version_label(manifest), hint="the publisher did not include one"
                )
            data = bytes(content.read(0, min(content.size_bytes, LIMIT_BYTES)))
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    return Readme(version_label(manifest), content.path, text, content.size_bytes > LIMIT_BYTES)
