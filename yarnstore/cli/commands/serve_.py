"""`ystore serve`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, WholeNumber, command
from yarnstore.errors import ConfigError
from yarnstore.store.native import parent_pid

if TYPE_CHECKING:
    from yarnstore.web.serve import Ready


@command(
    "serve",
    example="ystore serve --open\nystore serve --port 8571 --token-file ~/.config/ystore.token\n"
    "ystore serve --ready-json --exit-with-parent",
)
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--port", type=WholeNumber(0, 65535), default=0, metavar="PORT", help="Port (default: a free one)."
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Accept requests for this host name too, such as behind a proxy; may be repeated.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Read the API's token from FILE; if it does not exist, write a new one there.",
)
@click.option("--read-only", is_flag=True, help="Refuse requests that change anything.")
@click.option("--hub", is_flag=True, help="Also serve the API of the Hugging Face Hub, for HF_ENDPOINT.")
@click.option(
    "--oci", is_flag=True, help="Also serve models as an OCI registry, for `ollama pull`, skopeo and others."
)
@click.option(
    "--fill",
    is_flag=True,
    help="If a client of --hub or --oci requests a version that is not stored, download it first.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the dashboard in the browser.")
@click.option(
    "--ready-json",
    is_flag=True,
    help="Print one line of JSON when the server is ready: url, login_url, token and pid.",
)
@click.option("--exit-with-parent", is_flag=True, help="Exit when the parent process does.")
@click.option(
    "--tls-cert", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="TLS certificate (PEM)."
)
@click.option(
    "--tls-key", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="TLS private key (PEM)."
)
@click.option(
    "--plain-http",
    is_flag=True,
    help="Allow listening without TLS on an address that other machines can reach.",
)
def cli(
    run: Invocation,
    host: str,
    port: int,
    allow_hosts: tuple[str, ...],
    token_file: str | None,
    read_only: bool,
    hub: bool,
    oci: bool,
    fill: bool,
    open_browser: bool,
    ready_json: bool,
    exit_with_parent: bool,
    tls_cert: str | None,
    tls_key: str | None,
    plain_http: bool,
) -> None:
    """Serve the dashboard and the JSON API.

    Prints a login address that works once, in one browser.  Runs until it is interrupted.  Needs the extra
    `web`: pip install 'yarnstore[web]'.
    """
    parent = parent_pid()  # before the imports, during which it may end
    try:
        from yarnstore.web.serve import Options, serve
    except ModuleNotFoundError as error:
        if (error.name or "yarnstore").startswith("yarnstore"):
            raise
        raise ConfigError(
            f"`ystore serve` needs {error.name}, which is not installed",
            hint="pip install 'yarnstore[web]'",
        ) from None
    options = Options(
        host=host,
        port=port,
        allow_hosts=allow_hosts,
        token_file=token_file,
        read_only=read_only,
        parent=parent if exit_with_parent else None,
        open_browser=open_browser,
        tls_certificate=tls_cert,
        tls_key=tls_key,
        plain_http=plain_http,
        hub=hub,
        oci=oci,
        fill=fill,
    )

    def on_ready(ready: Ready) -> None:
        if ready_json or run.output.json:
            print(json.dumps(asdict(ready)), flush=True)
        else:
            print(f"serving {run.home or 'the store'} at {ready.url}")
            base = ready.url.rstrip("/")
            if hub:
                print(f"  Hub:     HF_ENDPOINT={base}")
            if oci:
                print(f"  images:  {base.partition('://')[2]}/library/MODEL:VERSION")
            print(f"  log in:  {ready.login_url}", flush=True)

    serve(run.open_store, options, on_ready)
