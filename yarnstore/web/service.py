"""One running service: the store, its jobs, and who may ask."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from yarnstore import Store
from yarnstore.progress import Progress, ignore
from yarnstore.results import Update
from yarnstore.settings import config_path, managed_path
from yarnstore.store.layout import StoreLayout
from yarnstore.web.access import Access
from yarnstore.web.events import Events
from yarnstore.web.jobs import Jobs
from yarnstore.web.plans import GcPlans
from yarnstore.web.records import Overview

_IMPATIENT_S = 5.0


class Service:
    """What the routes work with.  `open_store` opens the store as the command line asked for it."""

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
        self._store = open_store()
        self._config = self._config_mark()
        self.access = access
        self.plans = GcPlans()
        self.read_only = read_only
        self.secure = secure  # whether it speaks TLS
        self.events = Events(self.fingerprint)
        layout = StoreLayout(self._store.home, self._store.settings.lock_timeout_s)
        self.jobs = Jobs(layout, lambda: self.asking, self.events.publish, read_only=read_only)

    @property
    def home(self) -> Path:
        """The folder of the store."""
        return self._store.home

    @property
    def store(self) -> Store:
        """The store, with the settings that `config.toml` has now.  Raises: ConfigError."""
        with self._lock:
            mark = self._config_mark()
            if mark != self._config:
                self._store.settings = self._open_store().settings  # what `path` gave out stays leased
                self._config = mark
            return self._store

    def _config_mark(self) -> str:
        return " ".join(_mark(path) for path in (config_path(self.home), managed_path(self.home)))

    def fingerprint(self) -> str:
        """A text that changes when what is installed, stored or configured does."""
        names = ("local-state.json", "refs/installed", "refs/holds", "registries")
        return " ".join([self._config_mark(), *(_mark(self.home / name) for name in names)])

    # --- answers that several calls make -------------------------------------------------------

    @property
    def asking(self) -> Store:
        """The store to ask registries with; of a service that only reads, from the cache alone."""
        return self._cached if self.read_only else self.store

    @property
    def impatient(self) -> Store:
        """The store, which waits a moment and no longer for a lock: a person waits for the answer."""
        settings = self.store.settings
        wait_s = min(settings.lock_timeout_s, _IMPATIENT_S)
        return Store(msgspec.structs.replace(settings, lock_timeout_s=wait_s), progress=ignore)

    def path(self, spec: str) -> str:
        """Where a version is that is stored.  Raises: NotFoundError, as it downloads nothing."""
        return self.store.path(spec)

    def updates(self, *, refresh: bool) -> list[Update]:
        """The installed models beside what their registries have; from the cache without `refresh`."""
        return (self.asking if refresh else self._cached).check_for_updates()

    @property
    def _cached(self) -> Store:
        """The store, without the network."""
        found = Store(self.store.settings, progress=ignore)
        found.set_network(offline=True)
        return found

    def overview(self) -> Overview:
        """The state of everything."""
        status = self.store.status()
        found = self.updates(refresh=False) if status.installed else []
        problems = [*status.notices]
        updates = sum(item.available for item in found)
        answer: Literal["current", "updates", "problems", "empty"] = "current"
        if not status.installed:
            answer, sentence = "empty", "No model is installed."
        elif problems:
            answer, sentence = "problems", problems[0]
        elif updates:
            answer = "updates"
            sentence = "1 model has an update." if updates == 1 else f"{updates} models have updates."
        else:
            sentence = "Everything is current."
        return Overview(
            answer=answer,
            sentence=sentence,
            updates=updates,
            problems=problems,
            last_check_ms=None,
            last_fsck_ms=None,
            jobs_running=self.jobs.running(),
            store=status,
        )

    async def start(self) -> None:
        """Begin to work, in the running event loop."""
        self.events.attach()

    async def stop(self) -> None:
        """Stop the jobs that run; they are kept."""
        self.events.close()
        self.jobs.close()
        self._store.close()


def _mark(path: Path) -> str:
    """A text that changes when a file is replaced or written, or a name in a folder is."""
    try:
        found = os.stat(path)
    except OSError:
        return "-"
    return f"{found.st_mtime_ns}.{found.st_size}.{found.st_ino}"


def say(event: Progress) -> None:
    """Print what the engine notes outside of jobs on stderr."""
    if event.phase == "note":
        print(event.text, file=sys.stderr)
