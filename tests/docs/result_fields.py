"""What each command prints with `--json`, and what each field of a result means, from the result types."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
import tokenize
import types
from io import StringIO
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from msgspec import structs

from yarnstore import results

# A type, or the fields of an object that no type describes, each with its meaning.
Shape: TypeAlias = Any

_QUEUE = [("", list[results.QueuedFetch])]
_EDIT = [("", results.AmendResult)]
_RULES = [("", results.AutoUpdateStatus)]

# By command: when it prints what.
OUTPUT: dict[str, list[tuple[str, Shape]]] = {
    "ystore fetch": [
        ("one SPEC", results.FetchResult),
        ("several SPECs, or `--locked`", list[results.FetchResult]),
        ("`--queue`", list[results.QueuedFetch]),
    ],
    "ystore checkout": [
        ("a SPEC", results.CheckoutResult),
        ("`--locked`", list[results.CheckoutResult]),
    ],
    "ystore update": [
        ("one model", results.UpdateResult),
        ("several models, or `--all`", results.UpdateSummary),
    ],
    "ystore rollback": [("", results.CheckoutResult)],
    "ystore queue": _QUEUE,
    "ystore queue list": _QUEUE,
    "ystore queue remove": _QUEUE,
    "ystore queue run": [("", list[results.QueueRun])],
    "ystore lock": [
        ("", results.LockResult),
        ("`--digest`", {"digest": "the digest of the lock file"}),
    ],
    "ystore pin": [("", results.PinResult)],
    "ystore unpin": [("", results.PinResult)],
    "ystore import": [
        ("a path", results.ImportResult),
        ("a model in another tool", list[results.ImportResult]),
        ("`--from-local-state`", results.TakeoverResult),
    ],
    "ystore export": [("", results.ExportResult)],
    "ystore remove": [("", results.RemoveResult), ("`--undo`", results.RestoreResult)],
    "ystore list": [
        ("", list[results.InstalledModel]),
        ("`--all`", list[results.StoredVersion]),
    ],
    "ystore log": [("", results.History)],
    "ystore outdated": [("", list[results.Update])],
    "ystore compat": [("", results.CompatTable)],
    "ystore path": [("", {"spec": "the SPEC as it was given", "path": "the path to open"})],
    "ystore run": [],  # only what the command prints
    "ystore search": [("", list[results.Offer])],
    "ystore show": [("", results.VersionDetails)],
    "ystore diff": [("", results.DiffResult)],
    "ystore inspect": [("", results.InspectResult)],
    "ystore identify": [("", results.IdentifiedFile)],
    "ystore publish": [("", results.PublishResult)],
    "ystore registry add": [("", results.RegistryInfo)],
    "ystore registry alias": _EDIT,
    "ystore registry deprecate": _EDIT,
    "ystore registry lint": [("", results.LintResult)],
    "ystore registry list": [("", list[results.RegistryInfo])],
    "ystore registry refresh": [("", list[results.RegistryInfo])],
    "ystore registry remove": [("", {"name": "the name of the registry", "removed": "always true"})],
    "ystore registry set-current": _EDIT,
    "ystore registry mirrors": [("", results.RegistryInfo)],
    "ystore registry optimize": [("", results.OptimizeResult)],
    "ystore registry yank": _EDIT,
    "ystore status": [("", results.StoreStatus)],
    "ystore adopt": [
        ("folders", results.AdoptResult),
        ("`--undo`", list[results.ReplacedFile]),
    ],
    "ystore move": [("", results.MoveResult)],
    "ystore du": [("", results.StorageUsage)],
    "ystore stats": [("", results.Statistics)],
    "ystore gc": [("", results.GcResult)],
    "ystore fsck": [("", results.FsckResult)],
    "ystore doctor": [("", results.DoctorResult)],
    "ystore auto-update disable": _RULES,
    "ystore auto-update enable": _RULES,
    "ystore auto-update install-timer": [("", results.TimerFiles)],
    "ystore auto-update reset": _RULES,
    "ystore auto-update run": [("", results.AutoUpdateRound)],
    "ystore auto-update status": _RULES,
    "ystore serve": [
        (
            "",
            {
                "url": "the address of the service",
                "login_url": "a login address that works once, in one browser",
                "token": "the bearer token of the API",
                "pid": "the process",
            },
        )
    ],
    "ystore completion": [("", {"shell": "the shell", "script": "the completion script"})],
    "ystore help": [
        ("", {"command": "the whole name of the command", "help": "its help text"}),
        ("`--man`", list[str]),
    ],
}

# Fields that mean the same in each result that has one of this name, unless the type says otherwise.
_USUAL = {
    "model": "The id of the model.",
    "version": "The version.",
    "variant": "The variant.",
    "registry": "The name of the registry.",
    "manifest": "The SHA-256 of the manifest.",
    "checksum": "The SHA-256 of the file.",
    "size_bytes": "The size of all files, in bytes.",
    "download_bytes": "How many bytes were downloaded, or would be.",
    "latest": "The version that `latest` means.",
    "sha256": "The SHA-256 of the file.",
    "freed_bytes": "How many bytes the retention rules deleted afterwards.",
    "seconds": "How long it took.",
    "error": "The error, with the fields that `--json` prints; None if there was none.",
    "changelog": "The changelog of the version.",
    "release_date": "When the version was published, ISO 8601.",
    "security": "Whether it is a security update.",
    "deprecated": "Whether its publisher advises against it.",
    "deprecated_reason": "Why its publisher advises against it.",
    "replaced_by": "The version that its publisher recommends instead.",
    "yanked": "Whether its publisher withdrew it.",
    "in_store": "Whether the version is stored completely.",
    "compatibility": "The ranges of application versions that it fits; empty for any.",
    "minimum_ram_gb": "The memory that it needs, in GB (10^9 bytes).",
    "recommended_ram_gb": "The memory that is recommended, in GB (10^9 bytes).",
    "description": "The description of the model.",
    "tags": "The search keywords of the model.",
    "category": "The category of the model.",
    "license": "The license of the model.",
    "homepage": "The web page of the model.",
    "format": "The file format; None if it has no tensors or is not understood.",
    "dtype": "The element type, such as `bf16`.",
    "shape": "The shape, the slowest dimension first.",
    "parameters": "The number of parameters.",
}

_INTRO = """\
# Results and JSON

This page is made from the types in `yarnstore.results` by `make docs`; a test checks that it is current, and that commands print these fields.

Each call of the Python API returns one of these types, or a list of them.
With `--json` a command prints the same fields as one JSON document: an object for each type, `null` for None, an array for a list.
A field may be None if the value is not known or does not apply.
Fields that end in `_bytes` count bytes.
Fields that end in `_ms` are milliseconds since 1970-01-01 UTC, fields that end in `_s` and `seconds` are seconds.
Releases may add fields; they do not remove, rename or retype one.

An error is printed as `{"error": {…}}`, with the fields on the [page of errors](errors.md).
`--progress json` prints one [Progress](#progress) a line on stderr.

## What each command prints

| command | if | prints |
|---|---|---|
"""  # noqa: E501 - one sentence per line


def is_result(shape: Shape) -> bool:
    """Whether a shape is one of the types with a section on the page."""
    return isinstance(shape, type) and (dataclasses.is_dataclass(shape) or shape is results.Progress)


def result_types() -> list[type]:
    """The types that commands print and calls return, and those within them, by name."""
    found: dict[str, type] = {}
    waiting = [getattr(results, name) for name in results.__all__]
    while waiting:
        shape = waiting.pop()
        if not is_result(shape):
            waiting += [part for part in get_args(shape) if isinstance(part, type)]
        elif shape.__name__ not in found:
            found[shape.__name__] = shape
            waiting += [part for hint in get_type_hints(shape).values() for part in (hint, *get_args(hint))]
    return [found[name] for name in sorted(found)]


def fields_of(shape: type) -> dict[str, tuple[Shape, str]]:
    """Each field and property of a type, in the order in which they are printed: its type and its meaning."""
    hints, said = get_type_hints(shape), comments_of(shape)
    fields: Any = dataclasses.fields(shape) if dataclasses.is_dataclass(shape) else structs.fields(shape)
    found = {
        item.name: (hints[item.name], said.get(item.name) or _USUAL.get(item.name, "")) for item in fields
    }
    for name, item in vars(shape).items():
        if isinstance(item, property):
            found[name] = (get_type_hints(item.fget)["return"], _first_sentence(item.__doc__ or ""))
    return found


@functools.cache
def comments_of(shape: type) -> dict[str, str]:
    """The `#:` comments of a class, by field: behind it, or on the lines above it."""
    text = textwrap.dedent(inspect.getsource(shape))
    body = ast.parse(text).body[0]
    assert isinstance(body, ast.ClassDef)
    comments = {
        token.start[0]: token.string.removeprefix("#:").strip()
        for token in tokenize.generate_tokens(StringIO(text).readline)
        if token.type == tokenize.COMMENT and token.string.startswith("#:")
    }
    found = {}
    for item in body.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            lines = [comments.pop(item.lineno, "")]
            while item.lineno - len(lines) in comments:
                lines.insert(0, comments.pop(item.lineno - len(lines)))
            found[item.target.id] = " ".join(lines).strip()
    return found


def _first_sentence(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def describe(shape: Shape) -> str:
    """A type in words, with links to the types that have a section."""
    if isinstance(shape, dict):
        return "object: " + "; ".join(f"`{name}`, {meaning}" for name, meaning in shape.items())
    if is_result(shape):
        return f"[{shape.__name__}](#{shape.__name__.lower()})"
    origin, parts = get_origin(shape), [part for part in get_args(shape) if part is not Ellipsis]
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part) for part in parts if part is not type(None)) + " or None"
    if origin in (list, tuple):
        return f"list of {describe(parts[0])}"
    if origin is dict:
        return "object" if parts[1] is object else f"object of {describe(parts[1])}"
    return f"`{shape.__name__}`"


def output_of(path: str) -> str:
    """One line on what a command prints with `--json`; empty for a group that only has commands."""
    parts = [
        (f"with {when}, " if when else "") + describe(shape).replace("(#", "(results.md#")
        for when, shape in OUTPUT.get(path, ())
    ]
    return f"Prints with `--json`: {'; '.join(parts)}." if parts else ""


def render_results() -> str:
    """The page of what calls return and what commands print."""
    rows = [
        f"| [`{path}`](cli.md#{path.replace(' ', '-')}) | {when} | {describe(shape)} |"
        for path, cases in OUTPUT.items()
        for when, shape in cases
    ]
    lines = [_INTRO + "\n".join(rows), ""]
    for shape in result_types():
        text = inspect.cleandoc(shape.__doc__ or "")
        assert text, f"{shape.__name__} has no docstring"
        assert not text.startswith(f"{shape.__name__}("), f"{shape.__name__} has the docstring of a dataclass"
        lines += [f"## {shape.__name__}", "", " ".join(text.split()), ""]
        lines += ["| field | type | meaning |", "|---|---|---|"]
        for name, (kind, meaning) in fields_of(shape).items():
            assert meaning.endswith((".", "…")), f"{shape.__name__}.{name} has no sentence"
            lines.append(f"| `{name}` | {describe(kind)} | {meaning.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
