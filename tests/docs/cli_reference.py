"""What `make docs` makes from the code: docs/cli.md, errors.md, results.md and http-api.md, and the stubs of aio and results."""

# ruff: noqa: E501 - one sentence per line

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from tests.docs.http_reference import render_http
from tests.docs.result_fields import output_of, render_results
from tests.docs.stubs import render_async_stub, render_results_stub
from yarnstore import errors
from yarnstore.cli import cli
from yarnstore.cli.exitcodes import EXIT_CODES, MEANINGS, exit_code
from yarnstore.cli.group import CommonOption
from yarnstore.cli.manual import iter_commands, iter_paragraphs

DOCS = Path(__file__).resolve().parents[2] / "docs"

_INTRO = """\
# The command line

This page is made from the commands themselves by `make docs`; a test checks that it is current.

`SPEC` is `MODEL[:VARIANT][@VERSION|@RANGE|@ALIAS]`: `phi-3-mini`, `phi-3-mini@1.1.0`, `phi-3-mini@^1.1`, `phi-3-mini:cpu-int4@latest`.
Without a version it means `latest`; in commands that act on installed models, it means the installed version.

## Output

- On a terminal: sentences and tables for people, progress bars on stderr.
- Piped: stable lines.
  Lists have one row a line, with tabs between the columns; `status`, `stats`, `show`, `gc` and `fsck` print a name, a tab and a value on each line.
  Sizes are bytes, times are milliseconds since 1970, unknown values are empty.
  The table below lists the columns.
- `--json`: one JSON document on stdout, errors included: `{"error": {"code": …, "message": …, "hint": …, …}}`; [results.md](results.md) has the fields.
- `--progress json`: each step as one JSON object on a line of stderr.
- `checkout` and `path` print the path to open; when piped, nothing else.
- `registry lint` prints a line for each problem, on a terminal too: `path: message`, or `path: warning: message`.
- `YSTORE_OUTPUT=people` and `YSTORE_OUTPUT=plain` force the first or the second of these.

| piped | columns |
|---|---|
| `fetch` | model, version, variant, size, downloaded bytes, manifest |
| `update` | model, `updated`, `planned`, `current`, `pinned`, `held`, `unlisted` or `failed`, previous version, version, downloaded bytes, path |
| `rollback` | model, previous version, version, path |
| `list` | model, version, variant, size, installed, last used, path, marks (`pinned`, `deprecated`, `yanked`, `replaced`); with `--detailed` also uses, checksum, manifest |
| `list --all` | model, version, variant, size, own bytes, shared bytes, stored, last used, marks (`installed`, `pinned`); with `--detailed` also uses, checksum, manifest |
| `log` | version, variant, marks (`stored`, `installed`, `pinned`, `latest`, `deprecated`, `yanked`), release date, size, changelog |
| `log --moves` | time, what was done, previous version, version, variant, registry |
| `outdated` | model, installed, wanted, latest, type, bytes to download, note |
| `compat` | version, variant, whether it fits, ranges on the application, GB of memory at least, note |
| `pin`, `unpin` | model, version or range, variant, whether it is pinned |
| `search` | model, latest, number of versions, size, registry, installed, description |
| `registry list` | name, number of models, number of versions, fetched, URL, error |
| `publish` | model, version, variant, size, bytes written, manifest |
| `registry deprecate`, `yank`, `alias`, `set-current` | model, `changed` or `unchanged`, what, current version |
| `lock` | model, version, variant, size, request, version before |
| `import` | model, version, variant, size, bytes written, manifest |
| `import --from-local-state` | model, version, `installed`, `stored` or `failed`, size, path, error |
| `export` | model, version, size, how, path |
| `remove` | model, versions, whether the installed version was removed; with `--undo` the version that is installed |
| `queue`, `fetch --queue` | spec, status, added, registry, error |
| `queue run` | spec, status, downloaded bytes, error |
| `du` | model and version, variant, form, size, own bytes, shared bytes, bytes that removing it frees, why it is kept; then kind and bytes of other data, and `total` |
| `identify` | where, model, version, path, registry |
| `adopt` | `copy`, checksum, path; `similar`, path, file that it resembles, bytes in common; with `--apply` and `--undo` also what was done, path, other file, reason |
| `move` | path, size, whether it was moved |
| `auto-update run` | model, `updated`, `available`, `current`, `pinned`, `closed`, `stopped` or `failed`, installed, version, type, bytes, note |
| `auto-update enable`, `disable`, `status` | model, `on` or `off`, policy, windows, when the next opens |
| `auto-update install-timer` | each file written |
| `doctor` | check, `ok`, `note` or `wrong`, finding, suggested fix |

## Exit codes
"""


def commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group with its full name, groups before their commands."""
    for context in [*iter_commands(click.Context(group, info_name="ystore"))][1:]:
        yield context.command_path, context.command


def _table(rows: list[tuple[str, str]], head: tuple[str, str]) -> list[str]:
    cells = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [
        f"| {head[0]} | {head[1]} |",
        "|---|---|",
        *(f"| {left} | {right} |" for left, right in cells),
        "",
    ]


def _is_common(option: click.Option) -> bool:
    return isinstance(option, CommonOption) or option.name in ("version", "help")


def _options(command: click.Command, *, common: bool) -> list[tuple[str, str]]:
    context = click.Context(command)
    rows = []
    for option in command.params:
        if not isinstance(option, click.Option) or _is_common(option) != common:
            continue
        record = option.get_help_record(context)
        assert record is not None
        assert record[1], f"{command.name} {record[0]} has no help"
        rows.append((f"`{record[0]}`", record[1]))
    return rows


def _section(path: str, command: click.Command) -> list[str]:
    level = "##" if path.count(" ") == 1 else "###"
    assert command.help, f"{path} has no help"
    usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=path)))
    lines = [f"{level} {path}", ""]
    for part in iter_paragraphs(command):
        lines += [part, ""] if isinstance(part, str) else ["```", *part, "```", ""]
    lines += ["```", f"{path} {usage}".rstrip(), "```", ""]
    example = (command.epilog or "").partition("Example:\n")[2]
    assert example, f"{path} has no example"
    lines += ["For example:", "", "```", *(f"$ {line.strip()}" for line in example.splitlines()), "```", ""]
    printed = output_of(path)
    lines += [printed, ""] if printed else []
    options = _options(command, common=False)
    return lines + (_table(options, ("option", "")) if options else [])


_ERRORS = """\
# Errors

This page is made from `yarnstore/errors.py` and the table of exit codes by `make docs`; a test checks that it is current.

Every error that `yarnstore` raises on purpose is a `YarnstoreError` from `yarnstore.errors`.
Each has `message` (what happened, and to what), `hint` (what to do next, or empty), `code` (a stable word) and `fields` (the details).
With `--json` an error is the only document on stdout:

```json
{
  "error": {
    "what": "model",
    "name": "phi3-mini",
    "where": "yarn",
    "near": ["phi-3-mini"],
    "code": "not-found",
    "message": "no model \\"phi3-mini\\" in yarn. Did you mean phi-3-mini?",
    "hint": "`ystore search` lists the available models"
  }
}
```

## The tree

"""


def every_error(
    root: type[errors.YarnstoreError] = errors.YarnstoreError,
) -> list[type[errors.YarnstoreError]]:
    """The classes of the error tree, each before those below it."""
    below = [sub for sub in root.__subclasses__() if sub.__module__ == errors.__name__]
    return [root, *(each for sub in below for each in every_error(sub))]


_KINDS = """
## Errors in what was typed or named

| kind | class | exit code |
|---|---|---|
| an option, a spec, a version, a range, a time, a rate or an address that cannot be read | `UsageError` and its subclasses | 2 |
| an address where a path on this machine is needed | `UsageError` | 2 |
| a setting in `config.toml` or `YSTORE_*` that cannot be read | `ConfigError` | 2 |
| a file name, a tag or a `--download-url` that cannot be published | `UsageError` | 2 |
| a model, version, variant, alias, registry, pin or file that does not exist | `NotFoundError` | 3 |
| a range that no version matches | `NotFoundError` | 3 |
| a file with wrong bytes, whoever named it | `IntegrityError` | 4 |
| a version that exists and does not fit the application or the memory | `IncompatibleError` | 6 |
| different content under a published version | `ConflictError` | 1 |
""".splitlines()


def render_errors() -> str:
    """The page of errors."""
    tree = inspect.cleandoc((errors.__doc__ or "").split("\n\n")[1])
    rows = [(f"`{cls.__name__}`", f"`{cls.code}` | `{exit_code(cls.__new__(cls))}`") for cls in every_error()]
    lines = [
        "| class | code | exit code |",
        "|---|---|---|",
        *(f"| {name} | {rest} |" for name, rest in rows),
    ]
    return _ERRORS + "\n".join(["```", tree, "```", *_KINDS, "", "## Codes", "", *lines]) + "\n"


def render_cli() -> str:
    """The page of commands."""
    rows = [(f"`{code}`", meaning) for code, meaning in sorted(MEANINGS.items())]
    assert {code for _, code in EXIT_CODES} <= set(MEANINGS), "an exit code without a meaning"
    lines = [_INTRO, *_table(rows, ("code", "meaning"))]
    lines += ["## Options of every command", "", *_table(_options(cli, common=True), ("option", ""))]
    for path, command in commands(cli):
        lines += _section(path, command)
    return "\n".join(lines).rstrip() + "\n"


PAGES = {
    "cli.md": render_cli,
    "errors.md": render_errors,
    "results.md": render_results,
    "http-api.md": render_http,
    "../yarnstore/aio.pyi": render_async_stub,
    "../yarnstore/results.pyi": render_results_stub,
}

if __name__ == "__main__":
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")
