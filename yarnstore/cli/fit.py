"""Options of commands that check whether a version may be used."""

from __future__ import annotations

import click

app_version_option = click.option(
    "--app-version",
    metavar="VERSION",
    help="Version of the application (default: $YSTORE_APP_VERSION, else config.toml).",
)
accept_change_option = click.option(
    "--accept-change", is_flag=True, help="Accept a version whose content in the registry changed."
)
force_option = click.option(
    "--force",
    is_flag=True,
    help="Install even if withdrawn, or if it needs more memory than this machine has.",
)
