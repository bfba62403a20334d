"""`ystore publish`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, WholeNumber, command
from yarnstore.cli.display import size
from yarnstore.progress import format_count, plural

if TYPE_CHECKING:
    from yarnstore.ops.publishing.publish import PublishResult


@command(
    "publish",
    example="ystore publish ./phi-3-mini phi-3-mini@1.1.0 --registry ./registry --changelog 'Fixes'",
)
@click.argument("source", type=click.Path())
@click.argument("spec")
@click.option(
    "--registry",
    required=True,
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Folder of the registry.",
)
@click.option("--changelog", metavar="TEXT", help="Description of the changes, shown before an update.")
@click.option(
    "--compat",
    "compatibility",
    multiple=True,
    metavar="RANGE",
    help="Application versions that it is compatible with.",
)
@click.option("--min-ram", type=click.FloatRange(min=0), metavar="GB", help="Memory required.")
@click.option("--recommended-ram", type=click.FloatRange(min=0), metavar="GB", help="Memory recommended.")
@click.option(
    "--requires",
    multiple=True,
    metavar="SPEC",
    help="Model that it needs, such as base@^1.0.",
)
@click.option("--variant", metavar="NAME", help="Variant, such as cpu-int4; can also be given in SPEC.")
@click.option("--security", is_flag=True, help="Mark this version as a security update.")
@click.option("--name", metavar="TEXT", help="Name of the model.")
@click.option("--description", metavar="TEXT", help="Description of the model.")
@click.option("--category", metavar="WORD", help="Category of the model.")
@click.option("--tag", "tags", multiple=True, metavar="WORD", help="Search keyword; may be repeated.")
@click.option(
    "--download-url",
    metavar="URL",
    help="Download address of the plain file, for clients without pack support.",
)
@click.option(
    "--deltas",
    type=WholeNumber(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="Number of earlier versions to write deltas from; 0: none.",
)
@click.option(
    "--base",
    metavar="SPEC|auto",
    help="Version, also of another model, to write a delta from; auto: the one that saves most.",
)
@click.option("--split", is_flag=True, help="Store each model's entry in its own file from now on.")
@click.option(
    "--force",
    is_flag=True,
    help="Publish even if files are truncated, LFS pointers or web pages, or shards are missing.",
)
@click.option(
    "--all-files",
    is_flag=True,
    help="Include files that are excluded by default, such as .git and caches, or by .ystoreignore.",
)
def cli(
    run: Invocation,
    source: str,
    spec: str,
    registry: str,
    changelog: str | None,
    compatibility: tuple[str, ...],
    min_ram: float | None,
    recommended_ram: float | None,
    requires: tuple[str, ...],
    variant: str | None,
    security: bool,
    name: str | None,
    description: str | None,
    category: str | None,
    tags: tuple[str, ...],
    download_url: str | None,
    deltas: int,
    base: str | None,
    split: bool,
    all_files: bool,
    force: bool,
) -> None:
    """Publish a file or folder as a version.

    Writes only chunks that the registry does not have, and registry.json last.
    Publishing the same content again changes only what options set; different content under a published
    version is refused.
    """
    if variant is not None:
        model, at, version = spec.partition("@")
        if ":" in model and model.partition(":")[2] != variant:
            raise click.UsageError(f"--variant {variant} and {spec} name two variants")
        spec = f"{model.partition(':')[0]}:{variant}{at}{version}"
    with run.store() as store:
        done = store.publish(
            source,
            spec,
            registry=registry,
            changelog=changelog,
            compatibility=compatibility,
            minimum_ram_gb=min_ram,
            recommended_ram_gb=recommended_ram,
            requires=requires,
            security=security,
            download_url=download_url,
            name=name,
            description=description,
            tags=tags,
            category=category,
            deltas=deltas,
            base=base,
            split=split,
            all_files=all_files,
            force=force,
            progress=store.progress,
        )
    label = f"{done.model} {done.version}"
    chunks = f"{format_count(done.chunks_new)} of {plural(done.chunks_total, 'chunk')} new"
    text = (
        f"{label}: published {size(done.size_bytes)} as {size(done.new_bytes)} "
        f"({chunks}) in {done.seconds:.1f} s"
    )
    if done.published_before:
        text = f"{label}: already published; {_changes(done)}"
    if done.base_bytes:
        text += f"; {size(done.base_bytes)} of deltas from {done.base}"
    if run.output.verbose:
        text += "".join(f"\n  delta from {older}: {size(taken)}" for older, taken in done.deltas.items())
        if done.back_bytes:
            text += f"\n  delta back to the version before: {size(done.back_bytes)}"
    row = (done.model, done.version, done.variant, done.size_bytes, done.new_bytes, done.manifest)
    run.output.done(done, lambda: text, row)


def _changes(done: PublishResult) -> str:
    changes = []
    if done.updated:
        changes.append(f"changed {', '.join(done.updated)}")
    elif done.changed:
        changes.append("the registry is now split")
    if done.chunks_new:
        changes.append(f"rewrote {plural(done.chunks_new, 'missing or corrupt chunk')}")
    return "; ".join(changes) or "nothing changed"
