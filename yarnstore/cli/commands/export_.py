"""`ystore export`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import size

_WAYS = {
    "reflink": "sharing disk blocks",
    "hardlink": "hard links",
    "copy": "copied",
    "decoded": "rebuilt from chunks",
    "present": "nothing to do",
}


@command(
    "export",
    example="ystore export phi-3-mini@1.0.0 ./phi-3-mini-1.0.0\n"
    "ystore export phi-3-mini hf://microsoft/phi-3-mini",
)
@click.option(
    "--hardlink", is_flag=True, help="Link to the store's read-only files where possible, instead of copying."
)
@click.argument("spec")
@click.argument("destination", type=click.Path())
def cli(run: Invocation, spec: str, destination: str, hardlink: bool) -> None:
    """Copy a version out of the store.

    DESTINATION is a path, or the name of a model in another tool of this machine:

    \b
    hf://ORG/NAME[@REVISION]                a snapshot in the Hugging Face cache
    ollama://[NAMESPACE/]MODEL[:TAG]        Ollama, for a version with one GGUF model
    lmstudio://PUBLISHER/MODEL              LM Studio
    oci:FOLDER[:TAG]                        an OCI image layout, as ModelPack

    A version that came from that tool gets the same digests there.

    On file systems with reflinks the copy shares disk blocks with the store.
    """
    with run.store() as store:
        done = store.export(spec, destination, hardlink=hardlink)
    how = _WAYS[done.how]
    run.output.done(
        done,
        lambda: f"{done.model} {done.version}: exported {size(done.size_bytes)} to {done.path} ({how})",
        (done.model, done.version, done.size_bytes, done.how, done.path),
    )
