"""The options of commands that ask whether a version fits."""

from __future__ import annotations

import click

app_version_option = click.option(
    "--app-version",
    metavar="VERSION",
    help="The application's version (else $YSTORE_APP_VERSION, else config.toml).",
)
force_option = click.option(
    "--force", is_flag=True, help="Take what needs more memory than there is, or was withdrawn."
)
