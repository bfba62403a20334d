"""What the faces serve: which versions a client may see, and downloading those that are not stored.

A client without the token sees models of public registries only: those that this machine reads without
credentials.  Imported models, and those of a registry that needs a token or a password, need the token.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress

from yarnstore.backends.urls import shown
from yarnstore.errors import NotFoundError, YarnstoreError
from yarnstore.results import History, StoredFile, StoredVersion, VersionFiles
from yarnstore.web import problems
from yarnstore.web.ended import ended
from yarnstore.web.faces.commits import commit_id
from yarnstore.web.faces.joined import Joined, Part
from yarnstore.web.records import Job
from yarnstore.web.service import Service

# The namespace of models whose ids have no `/`, for clients that need one.
_LIBRARY = "library/"
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What git shows of a commit, and more.
_CUT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
# Clients give up a response without a byte after 10 seconds or more, and try again.
_FILL_WAIT_S = 8.0
# llama.cpp waits for 300 seconds, and does not come again after a 429 as long as that says.
_PATIENT_WAIT_S = 240.0
# When a client should come again, in seconds: if it is not known how long the download takes, and at most.
_WAIT_S = 30
_LONGEST_WAIT_S = 600


class NotServedError(Exception):
    """Nothing that this client may see: `what` is `model`, `revision` or `file`."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what
        self.message = message


class FillingError(Exception):
    """The version is being downloaded into the store; the client should come again after `wait_s` seconds.

    With None the download failed.
    """

    def __init__(self, message: str, wait_s: int | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def commit_of(files: VersionFiles) -> str:
    """Return the commit of a version."""
    return commit_id(files.manifest)


class Library:
    """The models of a service, for its faces.  `fill` downloads versions of registries into the store."""

    def __init__(self, service: Service, *, fill: bool) -> None:
        self._service = service
        self._fill = fill
        self._jobs: dict[str, Job] = {}
        self._adding = asyncio.Lock()

    async def find(self, model: str, revision: str, *, trusted: bool) -> VersionFiles:
        """Return the files of a revision: `main` or an empty one is the installed version, else a commit, a
        version, an alias, `VARIANT@VERSION`, or the first digits of a commit, seven or more.

        Raises: NotServedError; YarnstoreError, such as for a registry that does not answer.
        """
        return await asyncio.to_thread(self._find, model, revision, trusted)

    def _find(self, model: str, revision: str, trusted: bool) -> VersionFiles:
        names = [model]
        if model.startswith(_LIBRARY):
            names.append(model.removeprefix(_LIBRARY))
        for name in names:
            try:
                found = self._listed(name, revision)
            except NotServedError as error:
                if error.what == "revision" and (trusted or self._is_public_model(name)):
                    raise
                continue
            if trusted or self._is_public(found.registry):
                return found
        # Whether a model exists is not said to strangers either.
        without = "" if trusted else " that can be read without the token of this service"
        raise NotServedError("model", f"no model {model[:120]!r}{without}")

    def _listed(self, model: str, revision: str) -> VersionFiles:
        if _COMMIT.fullmatch(revision):
            return self._selected(model, commit=revision)
        try:
            return self._selected(model, revision)
        except NotServedError as error:
            if error.what == "revision" and _CUT_COMMIT.fullmatch(revision):
                return self._selected(model, commit=revision)
            raise

    def _selected(self, model: str, revision: str = "", commit: str = "") -> VersionFiles:
        try:
            store = self._service.store
            if commit:
                return store.list_files(model, commit=commit, online=self._fill)
            first, at, second = revision.partition("@")
            variant, version = (f":{first}", second) if at else ("", first)
            selected = f"@{version}" if version not in ("", "main") else ""
            return store.list_files(f"{model}{variant}{selected}", online=self._fill)
        except NotFoundError as error:
            whole = error.fields.get("what") in ("model", "registry", "installed model")
            raise NotServedError("model" if whole else "revision", error.message) from None
        except YarnstoreError as error:
            if problems.status_of(error) == 400:  # not a name of a model or a version
                raise NotServedError("revision" if _is_model(model) else "model", error.message) from None
            raise

    def _is_public(self, registry: str | None) -> bool:
        """Whether a registry is read without credentials."""
        sources = self._service.store.settings.registries
        return any(
            source.name == registry
            and source.token is None
            and source.login is None
            and shown(source.url) == source.url  # nothing in the address is secret
            for source in sources
        )

    def _is_public_model(self, model: str) -> bool:
        try:
            found = self._service.store.list_files(model, online=self._fill)
        except YarnstoreError:
            return False
        return self._is_public(found.registry)

    async def state(self) -> str:
        """Return a text that changes with the stored versions, the cached registries and the settings."""
        return await asyncio.to_thread(self._service.fingerprint)

    async def versions(self, model: str) -> list[StoredVersion]:
        """Return the stored versions of a model that `find` has found, the newest first."""
        return await asyncio.to_thread(lambda: self._service.store.list_versions(model))

    async def history(self, model: str) -> History:
        """Return what registries and the store say about the versions of a model that `find` has found."""
        return await asyncio.to_thread(lambda: self._service.store.get_version_history(model))

    async def models(self, *, trusted: bool) -> list[VersionFiles]:
        """Return the files of each stored model's current version."""

        def read() -> list[VersionFiles]:
            names = sorted({item.model for item in self._service.store.list_versions()})
            found = [self._service.store.list_files(name) for name in names]
            return [files for files in found if trusted or self._is_public(files.registry)]

        return await asyncio.to_thread(read)

    async def open(self, files: VersionFiles, path: str, *, patient: bool = False) -> StoredFile:
        """Open a file of a version, which is downloaded if it is not stored.  A `patient` client waits for
        minutes.

        Raises: FillingError if that takes longer; YarnstoreError, also if the version has other files by now.
        """
        if not files.stored:
            await self._fetch(files, _spec(files), _PATIENT_WAIT_S if patient else _FILL_WAIT_S)
        return await asyncio.to_thread(self._open, files, path)

    def _open(self, files: VersionFiles, path: str) -> StoredFile:
        opened = self._service.store.open_file(_spec(files), path)
        if opened.manifest != files.manifest:
            opened.close()
            raise NotFoundError("version", _spec(files), where="the store as it was", hint="read it again")
        return opened

    async def open_parts(self, files: VersionFiles, parts: Sequence[Part]) -> Joined:
        """Open files of a version, at least one, with bytes between them, as one content; as `open`."""
        first = next(part.path for part in parts if not isinstance(part, bytes))
        return Joined(parts, await self.open(files, first))

    async def _fetch(self, files: VersionFiles, spec: str, longest_s: float) -> None:
        jobs = self._service.jobs
        async with self._adding:  # clients that ask at once wait for one job
            job = await self._job(files, spec)
        try:
            job = await asyncio.wait_for(ended(self._service, job), longest_s)
        except TimeoutError:
            left_s = jobs.get(job.id).seconds_left
            wait_s = _WAIT_S if left_s is None else min(max(int(left_s) + 1, 2), _LONGEST_WAIT_S)
            raise FillingError(f"{files.model} {files.version} is being downloaded", wait_s) from None
        if job.state != "done":
            why = job.error.detail if job.error is not None else f"the download was {job.state}"
            raise FillingError(why)

    async def _job(self, files: VersionFiles, spec: str) -> Job:
        """Return the job that downloads a version; a new one unless one is waiting or running."""
        jobs = self._service.jobs
        if spec in self._jobs:
            with suppress(NotFoundError):
                job = jobs.get(self._jobs[spec].id)
                if job.state in ("queued", "running"):
                    return job
        given = {"model": files.model, "variant": files.variant, "version": files.version}
        job = self._jobs[spec] = await asyncio.to_thread(jobs.add, "fetch", given)
        return job


def _spec(files: VersionFiles) -> str:
    return f"{files.model}:{files.variant}@{files.version}"


def _is_model(text: str) -> bool:
    """Whether a text can be the id of a model."""
    parts = text.split("/")
    return len(parts) <= 2 and all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", part) for part in parts)
