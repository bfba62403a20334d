"""Shell completion of commands, options, and the names of models, versions and registries.

Names come from the store and the cached registries; completing uses no network and waits for no lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    shell_complete,
)

from yarnstore.cli.command import invocation
from yarnstore.cli.group import below
from yarnstore.errors import YarnstoreError

if TYPE_CHECKING:
    from yarnstore.api import Store

VARIABLE = "_YSTORE_COMPLETE"
# A longer list is not useful.
_MOST = 500


@add_completion_class
class _Bash(BashComplete):
    """Bash, which splits words at `@`, `:` and `=`; here they are split at spaces alone."""

    source_template = """\
%(complete_func)s() {
    local line=${COMP_LINE:0:COMP_POINT} word prefix type value
    local -a words
    read -ra words <<< "$line"
    local number=$(( ${#words[@]} - 1 ))
    [[ $line == *[[:space:]] ]] && number=$(( number + 1 ))
    word=${words[number]-}
    # Readline replaces what follows the last of its own word breaks.
    prefix=${word%%"${word##*[@:=]}"}
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$prefix"}") ;;
        esac
    done < <(COMP_WORDS=$line COMP_CWORD=$number %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def source(self) -> str:
        return ShellComplete.source(self)  # without asking which bash is installed


_SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": ZshComplete, "fish": FishComplete}


def complete(cli: click.Command, instruction: str) -> int:
    """Answer a shell: `bash_source` asks for its script, `bash_complete` for completions.

    Returns an exit code.
    """
    _complete_names(click.Context(cli))
    return shell_complete(cli, {}, "ystore", VARIABLE, instruction)


def script(cli: click.Command, shell: str) -> str:
    """Return the script that completes `ystore` in a shell; `shell` is `bash`, `zsh` or `fish`."""
    return _SHELLS[shell](cli, {}, "ystore", VARIABLE).source()


_Names = Callable[["Store", click.Context, str], Iterable[str]]


def _models(store: Store, _: click.Context, __: str) -> Iterator[str]:
    with contextlib.suppress(YarnstoreError):
        yield from (item.model for item in store.list_installed_models())
    yield from sorted(item.model for item in store.search())


def _versions(store: Store, model: str) -> list[str]:
    return list(dict.fromkeys(row.version for row in store.get_version_history(model).versions))


def _specs(store: Store, ctx: click.Context, incomplete: str) -> Iterable[str]:
    left, at, _ = incomplete.partition("@")
    if not at:
        return _models(store, ctx, incomplete)
    model = left.partition(":")[0]
    return [f"{left}@{version}" for version in _versions(store, model)]


def _version_of_model(store: Store, ctx: click.Context, _: str) -> Iterable[str]:
    model = ctx.params.get("model")
    return _versions(store, model) if isinstance(model, str) else ()


def _registries(store: Store, _: click.Context, __: str) -> Iterable[str]:
    return [item.name for item in store.list_registries()]


def _commands(_: Store, ctx: click.Context, __: str) -> Iterable[str]:
    context = ctx.find_root()
    for word in ctx.params.get("words") or ():
        context = next(
            (each for each in below(context) if each.info_name == word), click.Context(ctx.command)
        )
    return [each.info_name or "" for each in below(context)]


# By the name of the argument or option, in any command or in one.
_NAMES: dict[str, _Names] = {
    **dict.fromkeys(("model", "models"), _models),
    **dict.fromkeys(("spec", "specs"), _specs),
    "version": _version_of_model,
    **dict.fromkeys(("registry", "refresh name", "remove name"), _registries),
    "help words": _commands,
    "update words": _specs,
}


def _complete_names(context: click.Context) -> None:
    """Add completion of names to the arguments and options of a command and its subcommands."""
    for each in below(context):
        _complete_names(each)
    for parameter in context.command.params:
        name = parameter.name or ""
        names = _NAMES.get(f"{context.info_name} {name}") or _NAMES.get(name)
        if names is not None and not isinstance(parameter.type, click.Path | click.Choice):
            parameter.shell_complete = partial(_items, names)  # type: ignore[method-assign]


def _items(names: _Names, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    run = invocation(ctx)
    run.offline, run.lock_timeout_s, run.output.quiet = True, 0.0, True
    found: list[str] = []
    with contextlib.suppress(YarnstoreError, OSError), run.store() as store:
        matching = (name for name in names(store, ctx, incomplete) if name.startswith(incomplete))
        found.extend(islice(matching, _MOST))
    return [CompletionItem(name) for name in dict.fromkeys(found)]
