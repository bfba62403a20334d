"""Open the dashboard in the user's browser."""

from __future__ import annotations

import html
import os
import pathlib
import webbrowser

from yarnstore.store import fsio, fsread
from yarnstore.store.filepath import Path


class LoginPage:
    """A page in a folder that redirects to the login link, readable only by its owner.

    The link itself would be in the list of processes, where other users could use it first.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / f"login-{fsread.unique_name()[:16]}.html"

    def open(self, url: str) -> bool:
        """Open the page; return whether a browser was found.  Raises: StorageError."""
        target = html.escape(url, quote=True)
        page = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={target}">'
        fsio.write_atomic(self.path, page.encode(), tmp_dir=self.path.parent, mode=0o600)
        return webbrowser.open(pathlib.Path(self.path).as_uri())

    def remove(self) -> None:
        """Remove the page after its link was used or has expired."""
        fsio.remove(self.path, sync=False)
