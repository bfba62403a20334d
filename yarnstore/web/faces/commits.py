"""The commits of a revision, as the Hub lists them: a version and the older stored ones of its variant."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from yarnstore.registry.timestamps import parse_timestamp
from yarnstore.registry.versions import precedence
from yarnstore.results import History, HistoryVersion, StoredVersion, VersionFiles

COMMIT_DIGITS = 40


def commit_id(manifest: str) -> str:
    """Return the commit of a version: the first 40 digits of its manifest's SHA-256."""
    return manifest.removeprefix("sha256:")[:COMMIT_DIGITS]


def commits_of(
    found: VersionFiles, stored: Iterable[StoredVersion], history: History
) -> list[dict[str, object]]:
    """Return the commits of a revision, the newest first, each with its version as title.

    Their dates are those of the releases, else those when the versions were stored.
    """
    said = {(row.variant, row.version): row for row in history.versions}
    versions = {(row.variant, row.version): (row.manifest, row.stored_ms) for row in stored}
    here = found.variant, found.version
    versions.setdefault(here, (found.manifest, 0))
    chosen = [
        (version, manifest, stored_ms)
        for (variant, version), (manifest, stored_ms) in versions.items()
        if variant == found.variant
        and (version == found.version or precedence(version) < precedence(found.version))
    ]
    chosen.sort(key=lambda item: precedence(item[0]), reverse=True)
    return [
        _commit(version, commit_id(manifest), stored_ms, said.get((found.variant, version)))
        for version, manifest, stored_ms in chosen
    ]


def _commit(version: str, identity: str, stored_ms: int, said: HistoryVersion | None) -> dict[str, object]:
    released = parse_timestamp(said.release_date) if said is not None else None
    date = released or datetime.fromtimestamp(stored_ms / 1000, UTC)
    return {
        "id": identity,
        "title": version,
        "message": (said.changelog or "") if said is not None else "",
        "authors": [],
        "date": date.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
