"""The options of commands that ask whether a version may be taken."""

from __future__ import annotations

import click

app_version_option = click.option(
    "--app-version",
    metavar="VERSION",
    help="The application's version (else $YSTORE_APP_VERSION, else config.toml).",
)
accept_change_option = click.option(
    "--accept-change", is_flag=True, help="Take a version that its registry has with another content now."
)
force_option = click.option(
    "--force", is_flag=True, help="Take what needs more memory than there is, or was withdrawn."
)
