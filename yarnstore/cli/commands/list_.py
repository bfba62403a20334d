"""`ystore list`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import format_age, size

if TYPE_CHECKING:
    from yarnstore.results import InstalledModel, StoredVersion


@command("list", example="ystore list\nystore list --all")
@click.option("--all", "every", is_flag=True, help="List all stored versions with the disk space of each.")
@click.option("--detailed", is_flag=True, help="Also show uses, checksum, manifest and path; same as -v.")
def cli(run: Invocation, every: bool, detailed: bool) -> None:
    """List installed models.

    With --all, list every stored version.  OWN is the disk space that only this version uses, SHARED what
    other versions use too.  `ystore du` also shows about how much removing a version frees.
    """
    detailed = detailed or run.output.verbose
    with run.store() as store:
        if every:
            _list_stored(run, store.list_versions(), detailed=detailed)
            return
        found = store.list_installed_models()
    if not run.output.for_people:
        plain: list[tuple[object, ...]] = [
            (i.model, i.version, i.variant, i.size_bytes, i.installed_ms, i.last_used_ms, i.path, _words(i))
            for i in found
        ]
        if detailed:
            plain = [(*row, i.uses, i.checksum, i.manifest) for row, i in zip(plain, found, strict=True)]
        run.output.rows(found, (), plain, "")
        return
    rows: list[tuple[str, ...]] = [
        (
            item.model,
            item.version + _marks(item),
            item.variant,
            size(item.size_bytes),
            format_age(item.installed_ms),
            format_age(item.last_used_ms),
        )
        for item in found
    ]
    header: tuple[str, ...] = ("MODEL", "VERSION", "VARIANT", "SIZE", "INSTALLED", "LAST USED")
    if detailed:
        header = (*header, "USES", "CHECKSUM", "MANIFEST", "PATH")
        rows = [
            (*row, str(item.uses), item.checksum, item.manifest[:19], item.path)
            for row, item in zip(rows, found, strict=True)
        ]
    run.output.rows(found, header, rows, "nothing is installed   (`ystore list --all` lists what is stored)")


def _list_stored(run: Invocation, found: list[StoredVersion], *, detailed: bool) -> None:
    header: tuple[str, ...] = ("MODEL", "VERSION", "VARIANT", "SIZE", "OWN", "SHARED", "LAST USED")
    rows: list[tuple[object, ...]] = []
    for item in found:
        marks = [word for word in ("installed", "pinned") if getattr(item, word)]
        if run.output.for_people:
            row: tuple[object, ...] = (
                item.model,
                item.version + (f" ({', '.join(marks)})" if marks else ""),
                item.variant,
                size(item.size_bytes),
                size(item.own_bytes),
                size(item.shared_bytes),
                format_age(item.last_used_ms),
            )
        else:
            row = (
                item.model, item.version, item.variant, item.size_bytes, item.own_bytes, item.shared_bytes,
                item.stored_ms, item.last_used_ms, marks,
            )  # fmt: skip
        rows.append((*row, item.uses, item.checksum, item.manifest) if detailed else row)
    if detailed:
        header = (*header, "USES", "CHECKSUM", "MANIFEST")
    run.output.rows(found, header, rows, "nothing is stored   (`ystore search` lists the available models)")


def _words(item: InstalledModel) -> list[str]:
    """The marks of `log`: `pinned`, `deprecated`, `yanked`; and `replaced`."""
    said = item.standing
    words = [name for name in ("deprecated", "yanked", "replaced") if said and getattr(said, name)]
    return ["pinned", *words] if item.pin else words


def _marks(item: InstalledModel) -> str:
    """` (pinned, deprecated)`."""
    marks = ["pinned"] if item.pinned else [f"pinned to {item.pin}"] if item.pin else []
    if item.standing is not None:
        marks += ["withdrawn"] if item.standing.yanked else ["deprecated"] if item.standing.deprecated else []
        marks += ["replaced"] if item.standing.replaced else []
    return f" ({', '.join(marks)})" if marks else ""
