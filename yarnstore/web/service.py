"""One running service: the store, its jobs, and its credentials."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from yarnstore import Store
from yarnstore.errors import CancelledError, YarnstoreError
from yarnstore.progress import Cancel, Progress, format_size, ignore
from yarnstore.results import Update
from yarnstore.settings import config_path, managed_path
from yarnstore.store import folders
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout
from yarnstore.web.access import Access
from yarnstore.web.events import Events
from yarnstore.web.installed import InstalledModels
from yarnstore.web.jobs import Jobs
from yarnstore.web.plans import GcPlans
from yarnstore.web.records import Answer, Job, Overview
from yarnstore.web.scheduler import Scheduler

_IMPATIENT_S = 5.0
_WEB = ("https://", "http://")
_THREADS = 64


class Service:
    """The context of the routes.  `open_store` opens the store with the options of the command line."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        access: Access,
        *,
        read_only: bool = False,
        secure: bool = False,
    ) -> None:
        self._open_store = open_store
        self._lock = threading.Lock()
        self._config = ""
        self.read_only = read_only
        self._store = self._opened()
        if read_only:
            folders.only_read(self._store.settings.home)
        self._config = self._config_mark()
        self.access = access
        self.ending = Cancel(lambda: CancelledError("the service is ending"))  # of each request
        self.plans = GcPlans()
        self.installed = InstalledModels()
        self.secure = secure  # whether it uses TLS
        self.events = Events(self.fingerprint)
        layout = StoreLayout(self._store.settings.home, self._store.settings.lock_timeout_s)
        self.jobs = Jobs(layout, lambda: self.store, self.events.publish, read_only=read_only)
        self.scheduler = Scheduler(lambda: self.store, self.jobs)

    @property
    def home(self) -> Path:
        """The folder of the store."""
        return self._store.settings.home

    @property
    def store(self) -> Store:
        """The store, with the present settings.

        Raises: ConfigError; ConflictError if another store has its path now, and the service ends.
        """
        if self.jobs.keeper.is_replaced():
            self.jobs.keeper.check()
        with self._lock:
            mark = self._config_mark()
            if mark != self._config:
                self._store.settings = self._opened().settings  # paths that `path` returned stay leased
                self._config = mark
            return self._store

    @property
    def last_store(self) -> Store:
        """The store, with the last readable settings."""
        return self._store

    def _opened(self) -> Store:
        """Open the store; for a read-only service offline, since it cannot cache answers."""
        found = self._open_store()
        if self.read_only:
            found.set_network(offline=True)
        return found

    def _config_mark(self) -> str:
        return " ".join(_mark(path) for path in (config_path(self.home), managed_path(self.home)))

    def fingerprint(self) -> str:
        """A text that changes with installed and stored versions and settings."""
        names = ("local-state.json", "manifests")
        parts = [self._config_mark(), *(_mark(self.home / name) for name in names)]
        for name in ("refs", "registries"):  # with their subfolders, in which files are replaced
            parts += [_mark(Path(folder)) for folder, _, _ in os.walk(self.home / name)]
        return " ".join(parts)

    def contents_mark(self) -> str:
        """A text that changes with the fingerprint, the packs, the files or the statistics."""
        names = ("packs", "files", "logs/statistics")
        return " ".join([self.fingerprint(), *(_mark(self.home / name) for name in names)])

    # --- results of several calls -------------------------------------------------------

    @property
    def impatient(self) -> Store:
        """The store with a short lock timeout, since a user waits for the response."""
        settings = self.store.settings
        wait_s = min(settings.lock_timeout_s, _IMPATIENT_S)
        return Store(msgspec.structs.replace(settings, lock_timeout_s=wait_s), progress=ignore)

    @property
    def unconnected(self) -> Store:
        """The store without the network, for answers that must not wait for a registry."""
        settings = self.store.settings
        network = msgspec.structs.replace(settings.network, offline=True)
        return Store(msgspec.structs.replace(settings, network=network), progress=ignore)

    def path(self, spec: str) -> str:
        """Return the path of a stored version.  Raises: NotFoundError; nothing is downloaded."""
        return self.store.path(spec)

    def updates(self, *, refresh: bool) -> list[Update]:
        """Return the available updates of installed models; from the cache without `refresh`."""
        return self.store.check_for_updates(refresh=refresh and not self.read_only)

    def overview(self) -> Overview:
        """Return the overview, from what is cached."""
        store = self.unconnected
        status = store.status()
        found = (
            store.check_for_updates(refresh=False) if status.installed and store.settings.registries else []
        )
        checks = self.jobs.done("fsck")
        registries = store.list_registries()
        problems = [*status.notices, *_problems_of(checks)]
        if not status.exists and not self.read_only:  # it existed when this service started
            problems.append(f"The folder of the store was removed: {store.settings.home}")
        if status.free_bytes < status.reserve_bytes:
            problems.append(f"The disk is nearly full: {format_size(status.free_bytes)} are free.")
        problems += [
            f"The registry {info.name} cannot be read: {info.error}" for info in registries if info.error
        ]
        problems += [
            f"The registry {info.name} has not been read yet: check for updates."
            for info in registries
            if not (info.fetched_ms or info.error or self.read_only) and info.url.startswith(_WEB)
        ]
        available = sum(item.available for item in found)
        answer, sentence = _answer(status.installed, problems, available)
        return Overview(
            answer=answer,
            sentence=sentence,
            updates=available,
            problems=problems,
            last_check_ms=max((info.fetched_ms for info in registries), default=0) or None,
            last_fsck_ms=checks[0].finished_ms if checks else None,
            jobs_running=self.jobs.running(),
            store=status,
            read_only=self.read_only,
        )

    async def start(self) -> None:
        """Start in the running event loop."""
        self.events.attach()
        loop = asyncio.get_running_loop()
        # The default depends on the processors; on a small machine, a few requests that wait for a registry
        # would block all others.
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, "request"))
        loop.run_in_executor(None, self._warm_up)
        if not self.read_only:
            self.scheduler.start()

    def _warm_up(self) -> None:
        """Read the installed models before the first request."""
        with contextlib.suppress(YarnstoreError):
            self.installed.rows(self.store)

    def end(self) -> None:
        """Begin to stop, in the event loop: requests that wait for a registry are cancelled."""
        self.ending.stop()
        self.events.close()
        self.jobs.interrupt()

    async def stop(self) -> None:
        """Stop running jobs, which the next service continues."""
        self.end()
        self.scheduler.stop()
        self.jobs.close()
        self._store.close()


def _answer(installed: int, problems: list[str], updates: int) -> tuple[Answer, str]:
    if problems:
        return "problems", problems[0]
    if not installed:
        return "empty", "No model is installed."
    if updates:
        return "updates", "1 model has an update." if updates == 1 else f"{updates} models have updates."
    return "current", "All models are up to date."


def _problems_of(checks: list[Job]) -> list[str]:
    """Return the unrepaired problems of the last check; a sample or a quick check finds fewer."""
    for checked in checks:
        result = checked.result or {}
        found = result.get("remaining" if result.get("repaired") else "problems")
        if isinstance(found, list) and found:
            first = found[0]
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return [f"The last check found a problem: {first['where']} {first['what']}{more}"]
        if result.get("sample") is None and not result.get("quick"):
            break
    return []


def _mark(path: Path) -> str:
    """Return a text that changes when a file, or a name in a folder, is written or replaced."""
    try:
        found = os.stat(path)
    except OSError:
        return "-"
    return f"{found.st_mtime_ns}.{found.st_size}.{found.st_ino}"


def say(event: Progress) -> None:
    """Print notes of the engine outside of jobs on stderr."""
    if event.phase == "note":
        print(event.text, file=sys.stderr)
