"""Open the dashboard in the user's browser."""

from __future__ import annotations

import webbrowser


def open_page(url: str) -> bool:
    """Open a page; whether a browser was found."""
    return webbrowser.open(url)
