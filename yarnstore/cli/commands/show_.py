"""`ystore show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command, registry_option
from yarnstore.cli.display import format_iso_age, indented, one_line, size

if TYPE_CHECKING:
    from yarnstore.results import VersionDetails


@command("show", example="ystore show phi-3-mini@1.1.0")
@registry_option
@click.argument("spec")
def cli(run: Invocation, spec: str) -> None:
    """Show the details of a version from its registry."""
    with run.store() as store:
        found = store.show(spec)
    run.output.facts(found, lambda: _text(found), hang=15)


_LONG = ("description", "changelog")  # what may have several lines


def _text(item: VersionDetails) -> str:
    ram = [] if item.minimum_ram_gb is None else [f"at least {item.minimum_ram_gb:g} GB"]
    ram += [] if item.recommended_ram_gb is None else [f"{item.recommended_ram_gb:g} GB recommended"]
    stored = "in the store" if item.in_store else "not downloaded"
    state = "installed" if item.installed == item.version else stored
    withdrawn = "withdrawn" if item.yanked else ""
    instead = f"use {item.replaced_by}" if item.replaced_by else "see the changelog"
    deprecated = f"deprecated: {one_line(item.deprecated_reason) or instead}" if item.deprecated else ""
    lines = {
        "name": item.name,
        "description": item.description,
        "state": ", ".join(filter(None, (state, withdrawn, deprecated, "security" if item.security else ""))),
        "variants": ", ".join(item.variants),
        "versions": ", ".join(item.versions),
        "aliases": ", ".join(f"{alias} = {version}" for alias, version in item.aliases.items()),
        "size": size(item.size_bytes),
        "published": format_iso_age(item.release_date),
        "application": ", ".join(item.compatibility),
        "requires": ", ".join(item.requires),
        "memory": ", ".join(ram),
        "category": item.category,
        "tags": ", ".join(item.tags),
        "license": item.license,
        "homepage": item.homepage,
        "checksum": item.checksum,
        "manifest": item.manifest,
        "registry": item.registry,
        "changelog": item.changelog,
    }
    margin = " " * 15
    shown = [
        f"  {key:<12} {indented(value, margin) if key in _LONG else one_line(value)}"
        for key, value in lines.items()
        if value
    ]
    return "\n".join([f"{item.model} {item.version} ({item.variant})", *shown])
