"""Changes to the deltas that a registry lists for builds that are published.

They are shortcuts: a build stays what it is, whatever deltas lead to it.  Works on the raw document, as
`edit` does.  Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from yarnstore.core.digest import Sha256
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.errors import FormatError
from yarnstore.registry.edit import RawDoc, raw_models
from yarnstore.registry.entries import BASED, DELTA_KEYS
from yarnstore.registry.schema import check_raw_model
from yarnstore.registry.timestamps import next_timestamp


class DeltaChange(NamedTuple):
    """What becomes of the deltas of the build with a manifest: what to list, by the key of its list, and
    packs to list no more as deltas from its own model."""

    add: Mapping[str, Sequence[Mapping[str, Any]]] = {}
    drop: Collection[str] = ()


def change_deltas(raw: RawDoc, model: str, changes: Mapping[Sha256, DeltaChange], *, now: str) -> bool:
    """Change the deltas of builds of a model, by their manifests, and say whether anything changed.

    A build that is no longer listed is passed over.  On an error `raw` is as it was.  Raises: FormatError.
    """
    models = raw_models(raw)
    old = models.get(model)
    if old is None:
        return False
    check_raw_model(old, model)
    new = copy.deepcopy(old)
    for version, entry in new["versions"].items():
        main = str(entry.get("variant") or DEFAULT_VARIANT)
        for build in (entry, *(b for name, b in entry.get("variants", {}).items() if name != main)):
            change = changes.get(_manifest(build)) if build.get("manifest") else None
            if change is not None:
                _change(build, change, f"{model} {version}")
    if new == old:
        return False
    check_raw_model(new, model)
    models[model] = new
    raw["last_updated"] = next_timestamp(now, raw.get("last_updated"))
    return True


def _manifest(build: RawDoc) -> Sha256:
    return Sha256.parse(str(build["manifest"]))


def _change(build: RawDoc, change: DeltaChange, what: str) -> None:
    for key in DELTA_KEYS:
        listed = build.get(key, [])
        if not isinstance(listed, list):
            raise FormatError(what, f"has {key} that are not a list")
        kept = [item for item in listed if key == BASED or item["pack"] not in change.drop]
        there = {(item["base_manifest"], item["pack"]) for item in kept}
        fresh = change.add.get(key, ())
        kept += [dict(item) for item in fresh if (item["base_manifest"], item["pack"]) not in there]
        if kept:
            build[key] = kept
        else:
            build.pop(key, None)
