"""Man pages, made from the commands: one for `ystore` and one for each command."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator

import click

from yarnstore._version import __version__
from yarnstore.cli.exitcodes import MEANINGS
from yarnstore.cli.group import below
from yarnstore.store import fsio, paths


def write_pages(cli: click.Command, folder: str | os.PathLike[str]) -> list[str]:
    """Write the pages of a command and all below it into a folder.  Returns their paths.

    Raises: StorageError, NotFoundError.
    """
    place = paths.absolute(folder)
    fsio.ensure_dir(place)
    written = []
    for context in iter_commands(click.Context(cli, info_name="ystore")):
        path = place / f"{_page_name(context)}.1"
        fsio.write_atomic(path, format_page(context).encode(), tmp_dir=place)
        written.append(str(path))
    return written


def iter_commands(context: click.Context) -> Iterator[click.Context]:
    """The context of a command and of each below it, groups first."""
    yield context
    for each in below(context):
        yield from iter_commands(each)


def iter_paragraphs(command: click.Command) -> Iterator[str | list[str]]:
    """The paragraphs of a command's help: a text on one line, or the lines of a list, which stay."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        yield rest.splitlines() if first == "\b" else " ".join(paragraph.split())


def format_page(context: click.Context) -> str:
    """The page of one command in the man macros, in ASCII."""
    command = context.command
    path = context.command_path
    usage = command.collect_usage_pieces(context)
    lines = [
        f'.TH "{_page_name(context).upper()}" "1" "" "yarnstore {__version__}" "User Commands"',
        ".SH NAME",
        _text(f"{_page_name(context)} - {command.get_short_help_str(limit=200).rstrip('.')}"),
        ".SH SYNOPSIS",
        f".B {_text(path)}",
        _text(" ".join(usage)),
        ".SH DESCRIPTION",
    ]
    for paragraph in iter_paragraphs(command):
        if isinstance(paragraph, str):
            lines += [".PP", _text(paragraph)]
        else:
            lines += [".PP", ".nf", *map(_text, paragraph), ".fi"]
    lines += _options(context)
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for each in below(context):
            lines += [".TP", f"\\fB{_text(each.info_name or '')}\\fP"]
            lines.append(_text(each.command.get_short_help_str(limit=200)))
    example = (command.epilog or "").partition("Example:\n")[2]
    if example:
        lines += [".SH EXAMPLES", ".nf", *(_text(line.strip()) for line in example.splitlines()), ".fi"]
    elif command.epilog:
        lines += [".PP", _text(" ".join(command.epilog.split()))]
    if context.parent is None:
        lines.append(".SH EXIT STATUS")
        for code, meaning in sorted(MEANINGS.items()):
            lines += [".TP", f"\\fB{code}\\fP", _text(meaning)]
    else:
        lines += [".SH SEE ALSO", f".BR {_text(_page_name(context.parent))} (1)"]
    return "\n".join(lines) + "\n"


def _options(context: click.Context) -> list[str]:
    lines = []
    for option in context.command.get_params(context):
        record = option.get_help_record(context)
        if record is not None:
            lines += [".TP", f"\\fB{_text(record[0])}\\fP", _text(record[1])]
    return [".SH OPTIONS", *lines] if lines else []


def _page_name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _text(text: str) -> str:
    """Escape text for troff: no escapes, no request at the start of a line, ASCII only."""
    shown = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    shown = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in shown)
    return f"\\&{shown}" if shown.startswith(".") else shown
