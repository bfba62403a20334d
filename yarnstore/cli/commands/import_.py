"""`ystore import`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import clean, indented, size
from yarnstore.progress import format_count, plural

if TYPE_CHECKING:
    from yarnstore.results import ImportResult, TakenModel, TakeoverResult

_FAILED, _DAMAGED = 1, 4


@command(
    "import",
    example="ystore import ./my-model my-model@0.1.0\n"
    "ystore import hf://microsoft/phi-3-mini\n"
    "ystore import docker://docker.io/ai/smollm2\n"
    "ystore import --from-local-state ~/.app/models/local-state.json",
)
@click.argument("source", type=click.Path(), required=False)
@click.argument("spec", required=False)
@click.option(
    "--from-local-state",
    "state",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Import every model listed in an older tool's local-state.json, with checksums verified.",
)
@click.option("--sha256", metavar="HEX", help="The SHA-256 that a file from the web must have.")
@click.option(
    "--all-files",
    is_flag=True,
    help="Include files that are excluded by default, such as .git and caches, or by .ystoreignore.",
)
def cli(
    run: Invocation,
    source: str | None,
    spec: str | None,
    state: str | None,
    sha256: str | None,
    all_files: bool,
) -> None:
    """Import a model from files, another tool, an image or the web.

    SOURCE is a file or folder, which becomes the version SPEC, or a model elsewhere:

    \b
    hf://ORG/NAME[@REVISION]                 the Hugging Face cache
    ollama://[NAMESPACE/]MODEL[:TAG]         Ollama
    lmstudio://PUBLISHER/MODEL[/FILE]        LM Studio
    oci:FOLDER[:TAG]                         an OCI image layout of ModelPack, Docker or KitOps
    docker://HOST[:PORT]/NAME[:TAG|@DIGEST]  the same, or an image of Ollama, in a registry
    https://HOST/FILE with --sha256          one file from the web

    Without SPEC, each revision or tag becomes a version 0.0.N+DIGEST.  SPEC sets another model name and, for
    a single revision, the version.  Only files from the web and images in a registry are downloaded; other
    tools keep their files.

    With --from-local-state, import and install every model that the file lists; one failure does not stop
    the others.  Exits with 4 if a checksum does not match, with 1 if an import failed for another reason.
    """
    if state is not None:
        if source is not None:
            raise click.UsageError("--from-local-state cannot be combined with SOURCE and SPEC")
        _take_over(run, state)
    elif source is None:
        raise click.UsageError("give SOURCE and SPEC, or --from-local-state FILE")
    elif sha256 is not None:
        _import_url(run, source, spec, sha256)
    elif spec is None or source.startswith("oci:") or "://" in source:
        _import_from(run, source, spec)
    else:
        _import(run, source, spec, all_files=all_files)


def _imported(done: ImportResult) -> str:
    what = f"imported {size(done.size_bytes)}"
    if not done.chunks_new:
        return f"{what}; already stored, {size(done.stored_bytes)} added"
    new = f"{format_count(done.chunks_new)} of {plural(done.chunks_total, 'chunk')} new"
    return f"{what}; {size(done.stored_bytes)} added ({new})"


def _import(run: Invocation, source: str, spec: str, *, all_files: bool) -> None:
    with run.store() as store:
        done = store.import_model(source, spec, all_files=all_files)
    run.output.done(
        done,
        lambda: (
            f"{done.model} {done.version}: {_imported(done)}\n"
            f"  install it: ystore checkout {done.model}@{done.version}"
        ),
        (done.model, done.version, done.variant, done.size_bytes, done.stored_bytes, done.manifest),
    )


def _import_url(run: Invocation, url: str, spec: str | None, sha256: str) -> None:
    if spec is None:
        raise click.UsageError("give a model and version, as in URL MODEL@1.0.0")
    with run.store() as store:
        done = store.import_url(url, spec, sha256=sha256)
    row = (done.model, done.version, done.variant, done.size_bytes, done.stored_bytes, done.manifest)
    run.output.done(done, lambda: _found(done), row)


def _import_from(run: Invocation, source: str, spec: str | None) -> None:
    with run.store() as store:
        done = store.import_from(source, spec)
    rows = [
        (i.model, i.version, i.variant, "present" if i.present else "imported", i.size_bytes, i.stored_bytes)
        for i in done
    ]
    run.output.report(done, lambda: "\n".join(map(_found, done)), rows)


def _found(done: ImportResult) -> str:
    label = f"{done.model} {done.version}"
    return f"{label}: stored already" if done.present else f"{label}: {_imported(done)}"


def _take_over(run: Invocation, state: str) -> None:
    with run.store() as store:
        done = store.import_local_state(state)
    rows = [(i.model, i.version, i.status, i.size_bytes, i.path, _why(i)) for i in done.models]
    run.output.report(done, lambda: _text(done), rows)
    codes = {item.error["code"] for item in done.models if item.error is not None}
    if codes:
        raise click.exceptions.Exit(_DAMAGED if codes & {"integrity", "bad-format"} else _FAILED)


def _text(done: TakeoverResult) -> str:
    lines = [_line(item) for item in done.models]
    if not done.models:
        return f"{clean(done.source)} lists no model"
    taken = len(done.models) - done.failed
    left = f", {done.failed} failed" if done.failed else ""
    return "\n".join([*lines, f"{plural(taken, 'model')} imported{left}"])


def _line(item: TakenModel) -> str:
    label = f"{clean(item.model)} {clean(item.version)}"
    if item.status == "failed":
        return f"{label}: {_why(item)}"
    if item.status == "stored":
        return f"{label}: {size(item.size_bytes)} imported; another version stays installed"
    return f"{label}: {size(item.size_bytes)} imported and installed\n  {item.path}"


def _why(item: TakenModel) -> str:
    return indented(str(item.error["message"])) if item.error is not None else ""
