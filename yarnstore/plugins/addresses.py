"""Addresses of files in versions, as the plugins have them: `MODEL[:VARIANT]@VERSION/FILE`, the version
optional.
"""

from __future__ import annotations

from collections.abc import Iterable

from yarnstore import Store
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.results import VersionFile


def stored_specs(store: Store) -> list[str]:
    """Return the specs of the stored versions."""
    return [
        f"{row.model}{'' if row.variant == DEFAULT_VARIANT else f':{row.variant}'}@{row.version}"
        for row in store.list_versions()
    ]


def split_address(store: Store, path: str) -> tuple[str, str]:
    """Return the spec and the path within the version; the model may have a `/` before its `@`.

    Without `@` the stored models say where the model ends.
    """
    name, at, rest = path.partition("@")
    if at:
        version, _, inner = rest.partition("/")
        return f"{name}@{version}", inner
    first, _, inner = path.partition("/")
    second, _, deeper = inner.partition("/")
    models = {item.model for item in store.list_versions()}
    if second and first not in models:
        return f"{first}/{second}", deeper
    return first, inner


def folder_entries(files: Iterable[VersionFile], folder: str) -> dict[str, VersionFile | None]:
    """Return what is directly in a folder of a version, by name in order; a folder is None.

    `folder` is empty for the version itself.  Nothing is in what is not a folder.
    """
    start = f"{folder}/" if folder else ""
    found: dict[str, VersionFile | None] = {}
    for file in files:
        if file.path.startswith(start):
            name, below, _ = file.path[len(start) :].partition("/")
            found[name] = None if below else file
    return dict(sorted(found.items()))
