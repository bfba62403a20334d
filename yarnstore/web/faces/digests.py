"""What digests of images name, for the requests that follow one for a tag.

Clients ask for layers by digest, also of a service that was started since.  Then the images of all stored
versions are made; after that, every other digest is known to name nothing until the store changes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

from yarnstore.results import VersionFiles
from yarnstore.web.faces.shapes import ImageLayer

# More than the layers of a thousand versions, as images have them.
LIMIT = 65536
# A repository as a client wrote it, and whether the client has the token.
Repository: TypeAlias = tuple[bool, str]


@dataclass(frozen=True)
class Named:
    """What a digest names of a version: a manifest with its media type, a layer, or other bytes."""

    files: VersionFiles
    data: bytes = b""
    media_type: str = ""
    layer: ImageLayer | None = None


class Digests:
    """At most `limit` digests; those that were not asked for longest are forgotten."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._named: OrderedDict[tuple[Repository, str], Named] = OrderedDict()
        self._searched: dict[Repository, str] = {}

    def get(self, repository: Repository, digest: str) -> Named | None:
        """Return what a digest names in a repository, as far as it is known."""
        found = self._named.get((repository, digest))
        if found is not None:
            self._named.move_to_end((repository, digest))
        return found

    def add(self, repository: Repository, digest: str, named: Named) -> None:
        """Remember what a digest names."""
        self._named[(repository, digest)] = named
        self._named.move_to_end((repository, digest))
        while len(self._named) > self._limit:
            self._named.popitem(last=False)
            self._searched.clear()  # another one may be asked for again

    def forget(self, repository: Repository, digest: str) -> None:
        """Forget a digest whose version has other files by now."""
        self._named.pop((repository, digest), None)

    def is_searched(self, repository: Repository, state: str) -> bool:
        """Whether all digests of a repository are known in this state of the store."""
        return self._searched.get(repository) == state

    def note_searched(self, repository: Repository, state: str) -> None:
        """Remember that all digests of a repository were added."""
        if len(self._searched) >= self._limit:
            self._searched.clear()
        self._searched[repository] = state
