"""Small registries on disk: models of a few bytes, published and then edited as publishers do by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yarnstore import Store

Change = Callable[[dict[str, Any]], None]


def publish(registry: Path, *specs: str) -> None:
    """Publish tiny models, each spec with a file of its own."""
    for spec in specs:
        source = registry.parent / "sources" / spec / "weights.bin"
        source.parent.mkdir(parents=True)
        source.write_bytes(f"the weights of {spec} ".encode() * 50)
        Store.publish(source, spec, registry=registry, changelog=f"changes of {spec.partition('@')[2]}")


def amend(registry: Path, change: Change) -> None:
    """Edit `registry.json` as a publisher does by hand."""
    path = registry / "registry.json"
    raw = json.loads(path.read_text())
    change(raw["models"])
    path.write_text(json.dumps(raw))


def mark(registry: Path, spec: str, **marks: object) -> None:
    """Add keys to one version, or to one of its variants."""
    name, _, version = spec.partition("@")
    model, _, variant = name.partition(":")

    def change(models: dict[str, Any]) -> None:
        entry = models[model]["versions"][version]
        (entry["variants"][variant] if variant and entry.get("variant") != variant else entry).update(marks)

    amend(registry, change)
