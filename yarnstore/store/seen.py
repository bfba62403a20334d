"""Records of the content of each version of a registry when it was fetched, to notice later changes.

docs/format/store.md governs `logs/seen/`: one record for each registry's address and model.  `remove` and
`gc` keep it.
"""

from __future__ import annotations

from collections.abc import Callable

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import FormatError
from yarnstore.store import lock, records, trash
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout
from yarnstore.store.records import CheckedRecord, Damage
from yarnstore.store.refs import VersionName

_LIMIT_VERSIONS = 1000
_HINT = "`ystore fsck --repair` moves it to trash/; its versions are recorded again when they are fetched"


class Seen(CheckedRecord, frozen=True, kw_only=True):
    """The contents of one model in one registry, by `<variant>/<version>`, the first seen first."""

    url: str
    model: str
    contents: dict[str, str]


def content_of(manifest: Manifest) -> Sha256:
    """Return an identifier of a version's content, independent of its chunks.

    For one file its SHA-256, else a hash of all paths and hashes.
    """
    if len(manifest.files) == 1:
        return manifest.files[0].sha256
    lines = sorted(f"{file.path}\0{file.sha256.hex}\n" for file in manifest.files)
    return Sha256.of("".join(lines).encode())


def seen_path(layout: StoreLayout, url: str, model: str) -> Path:
    """Return the path of the record of a model at the registry at `url`."""
    return layout.seen / Sha256.of(f"{url}\n{model}".encode()).hex


def read_seen(layout: StoreLayout, path: Path) -> Seen | None:
    """Return the record at `path`, None if it does not exist.  Raises: FormatError if it is damaged."""
    what = path.relative_to(layout.root).as_posix()
    found = records.read(path, Seen, on_damage=Damage(what, _HINT))
    if found is not None and path != seen_path(layout, found.url, found.model):
        raise FormatError(what, "belongs to another registry or model", hint=_HINT)
    return found


def seen_content(layout: StoreLayout, url: str, name: VersionName) -> Sha256 | None:
    """Return the content that a version had when it came from the registry at `url`; None if unknown.

    Raises: FormatError if the record is damaged.
    """
    found = read_seen(layout, seen_path(layout, url, name.model))
    content = found.contents.get(_key(name)) if found is not None else None
    return Sha256.parse(content) if content is not None else None


def remember(
    layout: StoreLayout, url: str, name: VersionName, content: Sha256, note: Callable[[str], None]
) -> None:
    """Record the content of a version that came from the registry at `url`, replacing an earlier one.

    A damaged record is moved to trash/; `note` is called for each version that is dropped because of the
    limit. Raises: StorageError.
    """
    path = seen_path(layout, url, name.model)
    with lock.hold_folder(layout.seen):
        contents: dict[str, str] = {}
        try:
            found = read_seen(layout, path)
            contents = dict(found.contents) if found is not None else {}
        except FormatError as error:
            trash.move_aside(path, layout.trash)
            note(f"{error.message}; it was moved to trash/ and starts again empty")
        if contents.get(_key(name)) == content.hex:
            return
        contents.pop(_key(name), None)
        contents[_key(name)] = content.hex
        for key in list(contents)[:-_LIMIT_VERSIONS]:
            del contents[key]
            note(
                f"{name.model}: the recorded content of {key} was dropped; at most "
                f"{_LIMIT_VERSIONS} versions are recorded"
            )
        records.write(path, Seen(url=url, model=name.model, contents=contents), tmp_dir=layout.tmp)


def _key(name: VersionName) -> str:
    return f"{name.variant}/{name.version}"
