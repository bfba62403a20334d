"""`ystore export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import clean, size
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import ExportResult

_BEHIND, _SHOWN = 1, 20

_WAYS = {
    "reflink": "sharing disk blocks",
    "hardlink": "hard links",
    "copy": "copied",
    "decoded": "rebuilt from chunks",
    "present": "nothing to do",
    "uploaded": "uploaded",
}


@command(
    "export",
    example="ystore export phi-3-mini@1.0.0 ./phi-3-mini-1.0.0\n"
    "ystore export phi-3-mini hf://microsoft/phi-3-mini\n"
    "ystore export phi-3-mini@1.0.0 docker://registry.example.com/ai/phi-3-mini",
)
@click.option(
    "--hardlink", is_flag=True, help="Link to the store's read-only files where possible, instead of copying."
)
@click.option("--check", is_flag=True, help="Only compare an export with SPEC; exits with 1 if it differs.")
@click.option(
    "--flavour",
    type=click.Choice(["modelpack", "docker"]),
    help="The form of an image: of the CNCF's ModelPack, or as Docker's model runner reads it.",
)
@click.argument("spec")
@click.argument("destination", type=click.Path())
def cli(
    run: Invocation, spec: str, destination: str, hardlink: bool, check: bool, flavour: str | None
) -> None:
    """Copy a version out of the store.

    DESTINATION is a path, the name of a model in another tool of this machine, or an image in a registry:

    \b
    hf://ORG/NAME[@REVISION]                a snapshot in the Hugging Face cache
    ollama://[NAMESPACE/]MODEL[:TAG]        Ollama, for a version with one GGUF model
    lmstudio://PUBLISHER/MODEL              LM Studio
    oci:FOLDER[:TAG]                        an OCI image layout
    docker://HOST[:PORT]/NAME[:TAG]         a registry of OCI images

    A path becomes a file if the version has only one, else a folder.  If it is a folder already, a single
    file gets its own name in it; in a folder that is not empty, a version with several files becomes the
    folder MODEL-VERSION.

    A version that came from that tool gets the same digests there.  The image of any other version is of
    ModelPack, and its tag is the version.  Only what the registry does not have is uploaded.

    On file systems with reflinks the copy shares disk blocks with the store.
    """
    if check:
        _compare(run, spec, destination, flavour)
        return
    with run.store() as store:
        done = store.export(spec, destination, hardlink=hardlink, flavour=flavour)
    how = _WAYS[done.how]
    run.output.done(
        done,
        lambda: f"{done.model} {done.version}: exported {size(done.size_bytes)} to {done.path} ({how})",
        (done.model, done.version, done.size_bytes, done.how, done.path),
    )


def _compare(run: Invocation, spec: str, destination: str, flavour: str | None) -> None:
    with run.store() as store:
        found = store.check_export(spec, destination, flavour=flavour)
    run.output.facts(found, lambda: _compared(found), answer=bool(found.behind))
    if found.behind:
        raise click.exceptions.Exit(_BEHIND)


def _compared(found: ExportResult) -> str:
    label = f"{found.model} {found.version}: {clean(found.path)}"
    if not found.behind:
        return f"{label} is up to date"
    lines = [f"{label} is behind: {plural(len(found.behind), 'file')} to write"]
    lines += [f"  {clean(path)}" for path in found.behind[:_SHOWN]]
    if len(found.behind) > _SHOWN:
        lines.append(f"  and {len(found.behind) - _SHOWN} more")
    return "\n".join(lines)
