"""`ystore list`."""

from __future__ import annotations

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.format import format_age
from yarnstore.cli.text import size


@command("list", example="ystore list")
def cli(run: Invocation) -> None:
    """The installed models."""
    with run.store() as store:
        found = store.list_installed_models()
    people = run.output.for_people
    rows = [
        (
            item.model,
            item.version + (" (pinned)" if item.pinned and people else ""),
            item.variant,
            size(item.size_bytes) if people else str(item.size_bytes),
            format_age(item.installed_ms) if people else str(item.installed_ms),
            format_age(item.last_used_ms) if people else str(item.last_used_ms),
            item.path,
        )
        for item in found
    ]
    header = ("MODEL", "VERSION", "VARIANT", "SIZE", "INSTALLED", "LAST USED", "PATH")
    run.output.rows(found, header, rows, "nothing is installed   (ystore search lists what there is)")
