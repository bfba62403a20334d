"""The plans of `gc`, each kept until it is applied or an hour has passed."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from yarnstore import Store
from yarnstore.errors import ConflictError, NotFoundError
from yarnstore.web.records import GcPlanned
from yarnstore.web.requests import GcRequest

_KEPT_S = 3600.0
_MANY = 20


@dataclass
class GcPlans:
    """The plans that were not applied yet."""

    clock: Callable[[], float] = time.time
    _plans: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, store: Store, wanted: GcRequest) -> GcPlanned:
        """Make a plan and keep it.  Raises: as `Store.plan_gc`."""
        given = msgspec.structs.asdict(wanted)
        found = store.plan_gc(**given)
        identity, expires = secrets.token_hex(8), self.clock() + _KEPT_S
        with self._lock:
            self._plans[identity] = (expires, {**given, "expected": found.fingerprint})
            while len(self._plans) > _MANY:
                del self._plans[next(iter(self._plans))]
        return GcPlanned(
            id=identity,
            freed_bytes=found.freed_bytes,
            items=found.items,
            kept=found.kept,
            expires_ms=int(expires * 1000),
        )

    def take(self, store: Store, identity: str) -> dict[str, Any]:
        """Remove a plan and return its arguments.

        Raises: NotFoundError; ConflictError if the store changed in the meantime.
        """
        with self._lock:
            expires, given = self._plans.pop(identity, (0.0, {}))
        if expires <= self.clock():
            raise NotFoundError("plan", identity[:80], hint="make a new one: POST /api/v1/gc/plans")
        wanted = {key: value for key, value in given.items() if key != "expected"}
        if store.plan_gc(**wanted).fingerprint != given["expected"]:
            raise ConflictError(
                "the store changed since this plan was made; nothing was deleted", hint="make a new plan"
            )
        return given
