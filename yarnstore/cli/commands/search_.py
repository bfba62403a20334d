"""`ystore search`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command, registry_option
from yarnstore.cli.display import one_line, size


@command("search", example="ystore search\nystore search language-model")
@registry_option
@click.argument("text", nargs=-1)
def cli(run: Invocation, text: tuple[str, ...]) -> None:
    """Search the registries for models.

    TEXT is matched against ids, names, descriptions, categories and tags.
    """
    with run.store() as store:
        found = store.search(" ".join(text))
    unknown = "–" if run.output.for_people else ""
    people = run.output.for_people
    rows: list[tuple[str, ...]] = [
        (
            item.model,
            one_line(item.latest) or unknown,
            str(item.versions),
            size(item.size_bytes) if run.output.for_people else str(item.size_bytes or ""),
            item.registry,
            item.installed or unknown,
            *((one_line(item.category) or unknown,) if people else ()),
            one_line(item.description or item.name),
        )
        for item in found
    ]
    header = ("MODEL", "LATEST", "VERSIONS", "SIZE", "REGISTRY", "INSTALLED", "CATEGORY", "DESCRIPTION")
    run.output.rows(found, header, rows, "no model matches")
