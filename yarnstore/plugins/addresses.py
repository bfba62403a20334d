"""Addresses of files in versions, as the plugins have them: `MODEL[:VARIANT]@VERSION/FILE`, the version
optional.
"""

from __future__ import annotations

from yarnstore import Store
from yarnstore.core.names import DEFAULT_VARIANT


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
