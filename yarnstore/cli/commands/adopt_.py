"""`ystore adopt`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, Size, command
from yarnstore.cli.commands.identify_ import describe
from yarnstore.cli.display import clean, size
from yarnstore.progress import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yarnstore.results import AdoptResult, CopiedFile, ReplacedFile

_SHOWN = 20


@command(
    "adopt",
    example="ystore adopt ~/models ~/.cache/huggingface\nystore adopt ~/models --apply --hardlink\n"
    "ystore adopt --undo",
)
@click.option("--apply", is_flag=True, help="Replace copies by reflinks, which share disk blocks.")
@click.option(
    "--hardlink",
    is_flag=True,
    help="With --apply, replace copies by hard links: one file, read-only, under several names.",
)
@click.option("--undo", is_flag=True, help="Turn all replaced files into independent copies again.")
@click.option(
    "--min-size", type=Size(), default="16k", show_default=True, metavar="SIZE",
    help="Leave out smaller files.",
)  # fmt: skip
@click.argument("folders", type=click.Path(), metavar="[DIR]...", nargs=-1)
def cli(
    run: Invocation, folders: tuple[str, ...], apply: bool, hardlink: bool, undo: bool, min_size: int
) -> None:
    """Find copies of models on a disk.

    Lists the model files in folders, what they are, which of them have the same content, and how much disk
    space one store would need.  Nothing is changed without --apply.  A copy is replaced only after it and the
    file that stays were hashed, if both are yours, and if no program has them open for writing.

    Hard-linked files are made read-only, because a change under one name would change them all.  --undo
    copies the content back, with its permissions and time.
    """
    if undo == bool(folders) or (undo and (apply or hardlink)):
        raise click.UsageError("give folders, or --undo alone")
    if hardlink and not apply:
        raise click.UsageError("--hardlink needs --apply")
    with run.store() as store:
        if undo:
            restored = store.undo_adopt()
            run.output.report(restored, lambda: _undone(restored), _rows(restored))
            return
        done = store.adopt(*folders, apply=apply, hardlink=hardlink, least_bytes=min_size)
    rows = [
        *(("copy", item.file.sha256, path) for item in done.copies for path in item.paths),
        *(("similar", item.path, item.like, item.shared_bytes) for item in done.similar),
        *_rows(done.replaced),
    ]
    run.output.report(done, lambda: _text(done), rows)


def _rows(replaced: Sequence[ReplacedFile]) -> list[tuple[str, ...]]:
    return [(item.how, item.path, item.like, item.why) for item in replaced]


def _text(done: AdoptResult) -> str:
    found = plural(done.paths, "model file")
    lines = [f"{found}, {size(done.size_bytes)}, with {plural(len(done.files), 'distinct content')}"]
    if done.copies:
        copies = sum(len(item.paths) - (not item.stored) for item in done.copies)
        lines.append(
            f"{plural(copies, 'copy', 'copies')} of {plural(len(done.copies), 'file')}: "
            f"{size(done.copies_bytes)}"
        )
        for item in done.copies[:_SHOWN]:
            lines += _copied(item)
        if len(done.copies) > _SHOWN:
            lines.append(f"  and {len(done.copies) - _SHOWN} more   (--json lists all)")
    for similar in done.similar[:_SHOWN]:
        share = 100 * similar.shared_bytes // max(similar.size_bytes, 1)
        lines.append(f"{clean(similar.path)} is almost a copy: {share}% of it is in {clean(similar.like)}")
    lines.append(f"one store would need at most {size(done.store_bytes)} for all, before compression")
    lines += [f"not read: {clean(text)}" for text in done.unreadable[:_SHOWN]]
    if done.replaced:
        lines += _replaced(done)
    elif done.copies:
        lines.append("  replace the copies: add --apply, or --apply --hardlink")
    return "\n".join(lines)


def _copied(item: CopiedFile) -> list[str]:
    known = item.file.known[0] if item.file.known else None
    name = f"{known.model} {known.version}" if known is not None else "not known here"
    return [
        f"  {clean(name)}: {describe(item.file)}",
        *(f"    {clean(path)}" for path in item.paths),
        *(["    and in the store"] if item.stored else []),
    ]


def _replaced(done: AdoptResult) -> list[str]:
    from yarnstore.ops.exchange.adopt import NO_REFLINKS

    ways = Counter(item.how for item in done.replaced)
    changed = sum(count for how, count in ways.items() if how != "skipped")
    lines = [f"{plural(changed, 'copy', 'copies')} replaced, {size(done.freed_bytes)} freed"]
    lines += _skipped(done.replaced)
    if any(item.why == NO_REFLINKS for item in done.replaced):
        lines.append("  replace them by hard links: ystore adopt DIR… --apply --hardlink")
    return [*lines, "  take it back: ystore adopt --undo"] if changed else lines


def _undone(done: Sequence[ReplacedFile]) -> str:
    if not done:
        return "nothing to undo: no file was replaced"
    restored = sum(item.how == "restored" for item in done)
    return "\n".join([f"{plural(restored, 'file')} restored", *_skipped(done)])


def _skipped(done: Sequence[ReplacedFile]) -> list[str]:
    return [f"  skipped {clean(item.path)}: {clean(item.why)}" for item in done if item.how == "skipped"]
