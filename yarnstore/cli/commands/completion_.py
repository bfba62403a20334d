"""`ystore completion`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command(
    "completion",
    example='ystore completion fish\neval "$(ystore completion bash)"',
)
@click.argument("shell", required=False, type=click.Choice(["bash", "zsh", "fish"]))
def cli(run: Invocation, shell: str | None) -> None:
    """Print the script that completes commands, options, models and versions in a shell.

    Put the line of the example into ~/.bashrc, with zsh into ~/.zshrc; write what fish reads into
    ~/.config/fish/completions/ystore.fish.  Names are those of the store
    and of the cached registries; the network is not used.
    """
    from yarnstore.cli.completion import script

    if shell is None:
        raise click.UsageError("name the shell: bash, zsh or fish")
    text = script(click.get_current_context().find_root().command, shell)
    run.output.line({"shell": shell, "script": text}, text.rstrip())
