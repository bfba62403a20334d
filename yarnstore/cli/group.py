"""Groups of commands, with the names of commands in other tools as suggestions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import click

# Command names of other and older tools, and the commands here.
_WORDS = {
    "remove": "rm del delete erase uninstall forget drop",
    "list": "ls ll installed ps version-list list-installed",
    "show": "info view describe details cat desc",
    "checkout": "install i use switch activate select",
    "fetch": "get download clone",
    "update": "upgrade up bump version-update",
    "rollback": "undo revert back downgrade restore version-rollback",
    "run": "exec with",
    "identify": "whatis what file",
    "adopt": "dedupe dedup deduplicate duplicates",
    "gc": "cleanup clean prune autoremove autoclean purge vacuum tidy version-cleanup",
    "log": "history changelog versions reflog version-history",
    "outdated": "updates version-check list-updates",
    "path": "which where whereis locate location",
    "search": "find browse available query",
    "publish": "push upload release put",
    "registry": "remote remotes repo repos source sources config",
    "registry refresh": "sync refresh",
    "registry add": "add-registry init",
    "registry lint": "lint validate",
    "registry yank": "yank withdraw",
    "registry deprecate": "deprecate",
    "registry alias": "alias tag",
    "fsck": "verify scrub audit repair check-integrity",
    "status": "df",
    "du": "usage disk space",
    "stats": "statistics metrics savings",
    "export": "copy cp save extract",
    "import": "add load",
    "lock": "freeze",
    "pin": "hold",
    "unpin": "unhold release-pin",
    "diff": "compare cmp",
    "queue": "downloads",
    "serve": "server service daemon web dashboard ui gui api",
    "help": "man usage",
}
_REGISTRY_WORDS = {
    "remove": "rm del delete forget",
    "list": "ls show",
    "refresh": "update sync pull fetch",
    "add": "new create init",
    "lint": "check validate verify fsck",
    "yank": "withdraw unpublish",
    "alias": "tag",
    "set-current": "latest current",
}
_QUEUE_WORDS = {
    "remove": "rm del delete cancel",
    "list": "ls show status",
    "run": "start resume fetch download",
}
_MEANT = {
    group: {word: command for command, said in words.items() for word in said.split()}
    for group, words in (("ystore", _WORDS), ("registry", _REGISTRY_WORDS), ("queue", _QUEUE_WORDS))
}
_SEVERAL = {"pull": ("fetch", "update"), "info": ("show", "inspect"), "sync": ("registry refresh", "update")}


def _summary(command: click.Command) -> str:
    """The first sentence of a command's help; a test holds it short enough for 80 columns."""
    return command.get_short_help_str(limit=200)


def below(context: click.Context) -> Iterator[click.Context]:
    """The contexts of the commands of a group, in the order of its help; empty for a single command."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        if found := group.get_command(context, name):
            yield click.Context(found, info_name=name, parent=context)


class CommonOption(click.Option):
    """An option that every command takes; the help lists it after the command's own."""


class Command(click.Command):
    """A command whose help lists its own options first, and the common ones under a separate heading."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and not isinstance(option, click.Argument):
                (common if isinstance(option, CommonOption) else own).append(record)
        for title, rows in (("Options", own), ("Common options", common)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(Command, click.Group):
    """A click group that suggests a command for an unknown one."""

    # Titles of the help with the commands below each; where it is empty, they stand under one title.
    sections: ClassVar[dict[str, tuple[str, ...]]] = {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands first, then the options."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section, in one column for all sections."""
        names = self.list_commands(ctx)
        width = max(map(len, names))
        for title, below_it in (self.sections or {"Commands": tuple(names)}).items():
            found = [(name, self.get_command(ctx, name)) for name in below_it]
            rows = [(name.ljust(width), _summary(command)) for name, command in found if command]
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click; the error for an unknown command suggests similar ones."""
        unknown = args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None
        if unknown and not ctx.resilient_parsing:  # as while completing
            ctx.fail(f"unknown command {args[0]!r}{self._guess(ctx, args[0].lower())}")
        return super().resolve_command(ctx, args)

    def _guess(self, ctx: click.Context, word: str) -> str:
        from yarnstore.core.suggestions import close_names

        meant = _MEANT.get((self.name or "") if ctx.parent else "ystore", {}).get(word)
        found = [meant] if meant else close_names(word, self.list_commands(ctx))
        if ctx.parent is None and word in _SEVERAL:
            found = list(_SEVERAL[word])
        return f". Did you mean {' or '.join(found)}?" if found else ""
