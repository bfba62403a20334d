"""`ystore registry lint|deprecate|yank|alias|set-current`, for publishers of registries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import clean, size
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import AmendResult, LintResult, OptimizeResult

_FAULTY = 4

_registry = click.option(
    "--registry",
    required=True,
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Folder of the registry.",
)


@command(
    "lint", example="ystore registry lint ./registry --deep\nystore registry lint https://models.example.org/"
)
@click.argument("source", metavar="DIR|URL|FILE")
@click.option("--deep", is_flag=True, help="Also compare manifests and packs with the registry's entries.")
@click.option("--decode", is_flag=True, help="Like --deep, and also read every pack and hash every file.")
@click.option(
    "--model", "models", multiple=True, metavar="MODEL", help="Check only this model; may be repeated."
)
def lint(run: Invocation, source: str, deep: bool, decode: bool, models: tuple[str, ...]) -> None:
    """Check a registry for errors.

    A URL is read with the token or login of the registry configured for it, else with netrc.
    Exits with 4 if it finds errors; warnings do not change the exit code.
    """
    with run.store() as store:
        done = store.lint_registry(source, models=models, deep=deep, decode=decode)
    _tell_findings(run, done)
    if done.errors:
        raise click.exceptions.Exit(_FAULTY)


def _tell_findings(run: Invocation, done: LintResult) -> None:
    if run.output.json:
        run.output.document(done)
        return
    run.output.settle()
    for item in done.findings:
        mark = "warning: " if item.severity == "warning" else ""
        line = clean(f"{item.path}: {mark}{item.message}").replace("\n", " ")
        if run.output.for_people:
            run.output.text(line)
        else:
            click.echo(line)
    if run.output.for_people and not run.output.quiet:
        looked = f"{plural(done.models, 'model')}, {plural(done.versions, 'version')}"
        wrong = f"{plural(done.errors, 'error')}, {plural(done.warnings, 'warning')}"
        click.echo(f"{looked}: {wrong if done.findings else 'no problems found'}")


@command(
    "deprecate",
    example="ystore registry deprecate phi-3-mini@1.0.0 --registry ./registry --replaced-by 1.1.0",
)
@click.argument("spec", metavar="MODEL@VERSION")
@_registry
@click.option("--reason", metavar="TEXT", help="Reason, shown to users.")
@click.option("--replaced-by", metavar="VERSION", help="Version to use instead.")
@click.option("--undo", is_flag=True, help="Undo it.")
def deprecate(
    run: Invocation, spec: str, registry: str, reason: str | None, replaced_by: str | None, undo: bool
) -> None:
    """Mark a version, or one variant of it, as deprecated.

    MODEL:VARIANT@VERSION names one variant.  A deprecated version can still be installed, with a warning.
    If it is the current version, its replacement becomes the current version.
    """
    if undo and (reason or replaced_by):
        raise click.UsageError("--undo cannot be combined with --reason or --replaced-by")
    with run.store() as store:
        done = store.deprecate(spec, registry=registry, reason=reason, replaced_by=replaced_by, undo=undo)
    _tell(run, spec, done)


@command("yank", example="ystore registry yank phi-3-mini@1.0.1 --registry ./registry")
@click.argument("spec", metavar="MODEL@VERSION")
@_registry
@click.option("--undo", is_flag=True, help="Undo it.")
def yank(run: Invocation, spec: str, registry: str, undo: bool) -> None:
    """Withdraw a version, or one variant of it.

    MODEL:VARIANT@VERSION names one variant.  No file is deleted.  A withdrawn version can be installed only
    by its exact number with --force.  If it is the current version, the newest release before it becomes
    the current version.
    """
    with run.store() as store:
        done = store.yank(spec, registry=registry, undo=undo)
    _tell(run, spec, done)


@command(
    "alias",
    example="ystore registry alias phi-3-mini stable 1.1.0 --registry ./registry\n"
    "ystore registry alias phi-3-mini beta --remove --registry ./registry",
)
@click.argument("model")
@click.argument("name")
@click.argument("version", required=False)
@_registry
@click.option("--remove", is_flag=True, help="Remove the alias.")
def alias(run: Invocation, model: str, name: str, version: str | None, registry: str, remove: bool) -> None:
    """Set an alias such as `stable` to a version."""
    if remove == (version is not None):
        raise click.UsageError("give a version, or --remove to remove the alias")
    with run.store() as store:
        done = store.set_alias(model, name, version, registry=registry)
    _tell(run, model, done)


@command("set-current", example="ystore registry set-current phi-3-mini 1.1.0 --registry ./registry")
@click.argument("model")
@click.argument("version")
@_registry
def set_current(run: Invocation, model: str, version: str, registry: str) -> None:
    """Make a version the current one, which `latest` selects."""
    with run.store() as store:
        done = store.set_current(model, version, registry=registry)
    _tell(run, model, done)


@command(
    "optimize",
    example="ystore registry optimize ./registry --dry-run\n"
    'ystore registry optimize ./registry --model phi-3-mini --versions ">=1.2.0"',
)
@click.argument("registry", metavar="DIR", type=click.Path(file_okay=False))
@click.option(
    "--versions", metavar="RANGE", help="Versions in use.  [default: the 12 before the newest of each model]"
)
@click.option(
    "--model", "models", multiple=True, metavar="MODEL", help="Change only this model; may be repeated."
)
@click.option(
    "--dry-run", "-n", is_flag=True, help="Print what would be added and dropped, and change nothing."
)
def optimize(
    run: Invocation, registry: str, versions: str | None, models: tuple[str, ...], dry_run: bool
) -> None:
    """Add deltas for versions in use; drop unneeded ones.

    A delta from a version in use to the newest version is added if it is at most 85 % of the smallest
    download without it.  Deltas that publish writes are kept.  Changes are printed before
    anything is written, with sizes that are estimated from a sample.
    """
    with run.store() as store:
        done = store.optimize_registry(
            registry, models=models, versions=versions, dry_run=dry_run, progress=store.progress
        )
    rows = [
        (
            item.model,
            item.variant,
            item.base,
            item.version,
            item.action,
            size(item.size_bytes) if run.output.for_people else str(item.size_bytes),
        )
        for item in done.deltas
    ]
    run.output.rows(
        done,
        ("MODEL", "VARIANT", "FROM", "TO", "ACTION", "SIZE"),
        rows,
        "the registry has no deltas, and needs none",
    )
    if rows and run.output.for_people and not run.output.json:
        run.output.say(_optimized(done, dry_run=dry_run))


def _optimized(done: OptimizeResult, *, dry_run: bool) -> str:
    if all(item.action == "keep" for item in done.deltas):
        return "nothing to add or drop"
    added, dropped = size(done.added_bytes), size(done.dropped_bytes)
    return f"would add about {added}, drop {dropped}" if dry_run else f"added {added}, dropped {dropped}"


_YANKED = ("yanked", "no longer yanked")


def _tell(run: Invocation, what: str, done: AmendResult) -> None:
    if not run.output.json:
        for note in done.notes:
            run.output.say(clean(note))
    same = "" if done.changed else " (unchanged)"
    row = (done.model, "changed" if done.changed else "unchanged", done.what, done.current_version)
    # Lists say `withdrawn` too; `yanked` is the word of JSON and of piped output.
    word = done.what.replace("yanked", "withdrawn") if done.what in _YANKED else done.what
    run.output.done(done, lambda: clean(f"{what}: {word}{same}"), row)


PUBLISHERS = (lint, optimize, deprecate, yank, alias, set_current)
