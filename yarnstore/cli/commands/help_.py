"""`ystore help`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command("help", example="ystore help checkout\nystore help registry add\nystore help --man ./man1")
@click.option(
    "--man",
    "folder",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Write man pages of all commands to DIR instead.",
)
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
def cli(run: Invocation, words: tuple[str, ...], folder: str | None) -> None:
    """Show the help of a command, as --help does."""
    root = click.get_current_context().find_root()
    if folder is not None:
        from yarnstore.cli.manual import write_pages

        if words:
            raise click.UsageError("--man writes the pages of all commands; do not give COMMAND")
        pages = write_pages(root.command, folder)
        run.output.rows(pages, ("PAGE",), [(page,) for page in pages], "")
        return
    context = click.Context(root.command, info_name="ystore")
    for word in words:
        if not isinstance(context.command, click.Group):
            raise click.UsageError(f"{context.command_path} has no subcommands", context)
        name, found, _ = context.command.resolve_command(context, [word])
        if found is not None:  # else resolve_command has raised
            context = click.Context(found, info_name=name, parent=context)
    run.output.line({"command": context.command_path, "help": context.get_help()}, context.get_help())
