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
    """Print a shell completion script.

    Completes commands, options, models and versions, from the store and the cached registries,
    without using the network.  For bash, add `eval "$(ystore completion bash)"` to ~/.bashrc; for zsh, the
    same with `zsh` to ~/.zshrc; for fish, write the script to ~/.config/fish/completions/ystore.fish.
    """
    from yarnstore.cli.completion import script

    if shell is None:
        raise click.UsageError("give the shell: bash, zsh or fish")
    text = script(click.get_current_context().find_root().command, shell)
    run.output.line({"shell": shell, "script": text}, text.rstrip())
