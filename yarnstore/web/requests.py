"""The bodies that the API reads.  What is not known is refused."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Text = Annotated[str, Meta(min_length=1, max_length=300)]


class RequestBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A JSON object."""


class VersionRequest(RequestBody):
    """A version to download or to install."""

    version: Text | None = None  # or a range, or an alias; the one that `latest` means without it
    variant: Text | None = None
    force: bool = False  # also what does not fit the application or this machine


class UpdateRequest(RequestBody):
    """An update of one model."""

    to: Text | None = None  # a range to stay within
    major: bool = False  # also across a major version
    force: bool = False


class UpdateAllRequest(RequestBody):
    """An update of several models, or of all that are installed."""

    models: list[Text] = []


class RollbackRequest(RequestBody):
    """A rollback; without a version to the one before."""

    version: Text | None = None


class LoginRequest(RequestBody):
    """A login by a token."""

    token: Text
