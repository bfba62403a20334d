"""The part of `Store` that reads the files of a version without installing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarnstore.api.installing import Installing
from yarnstore.registry.spec import Spec

if TYPE_CHECKING:
    from yarnstore.ops.inspecting.contents import StoredFile, VersionFiles


class Reading(Installing):
    """List and read the files of versions."""

    def list_files(self, spec: str, *, commit: str = "", online: bool = False) -> VersionFiles:
        """Return the files of a version.

        A bare model is its installed version, else its newest stored one.  `commit` selects the version by
        the first hex digits of its manifest's SHA-256.  With `online`, also versions of registries are
        found, without downloading them; otherwise the network is not used.

        Raises: SpecError, NotFoundError, BackendError, IntegrityError.
        """
        from yarnstore.ops.inspecting.contents import list_files

        with self._session() as session:
            return list_files(session, Spec.parse(spec), commit=commit, online=online)

    def open_file(self, spec: str, path: str) -> StoredFile:
        """Open a file of a version for reading; `path` is its path within the version.

        Every chunk is hashed before its bytes are returned.  The version need not be installed; if it is not
        stored, it is downloaded.  The versions of `spec` are as in `list_files`.

        Raises: SpecError, NotFoundError, PolicyError; as `fetch` if something has to be downloaded.
        """
        from yarnstore.ops.inspecting.contents import open_file

        parsed = Spec.parse(spec)
        if self.settings.load_policy.restricts:
            from yarnstore.ops.inspecting.contents import list_files

            with self._session() as session:
                chosen = list_files(session, parsed, online=True)
            self.path(f"{chosen.model}:{chosen.variant}@{chosen.version}")  # raises if the policy refuses it
        with self._session() as session:
            return open_file(session, parsed, path)
