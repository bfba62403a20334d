"""The immutable context of an operation: one store, its registries, the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from yarnstore.core.manifest import Manifest
from yarnstore.errors import ConfigError
from yarnstore.ops.session.activity import Activity
from yarnstore.ops.session.registries import KnownRegistries
from yarnstore.ops.session.sources import RegistrySource as RegistrySource
from yarnstore.progress import OnProgress
from yarnstore.registry.host import Host
from yarnstore.registry.policies import KeepCopy, LoadPolicy
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs

DEFAULT_CONNECTIONS = 4

# Called with the model, version and path of a new installation and a progress callback; raises an error to
# revert it.
SelfCheck = Callable[[str, str, str, OnProgress], None]

# Called with a session, a version whose files exist, and whether to warn; raises an error if `[policy]`
# refuses it.
AdmitVersion = Callable[["Session", Manifest, bool], None]


def _unlooked(session: Session, manifest: Manifest, tell: bool) -> None:  # noqa: ARG001
    """Raise ConfigError if a policy is set, since this function does not check it."""
    if session.load_policy.restricts:
        raise ConfigError("[policy] is set, but this session cannot check versions for code")


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One use of a store.

    Its fields never change; `registries` caches the indexes of registries, and `activity` has the state of
    the running operation.  Threads share both.  `close` closes the connections.
    """

    layout: StoreLayout
    activity: Activity
    registries: KnownRegistries
    connections: int = DEFAULT_CONNECTIONS
    # By model, the self-checks to run after an installation.
    self_checks: Mapping[str, SelfCheck] = msgspec.field(default_factory=dict)
    # The value for `local-state.json`; None keeps the old one.
    auto_update: bool | None = None
    host: Host = msgspec.field(default_factory=Host)
    load_policy: LoadPolicy = msgspec.field(default_factory=LoadPolicy)
    # `ops/session/loadcode` checks it, which a rollback need not import.
    admit_version: AdmitVersion = _unlooked
    # Whether to accept a version whose content in its registry has changed.
    accept_change: bool = False
    # Other stores whose chunks are used instead of downloads; never written.
    alternates: tuple[Path, ...] = ()
    # Which versions keep packs in addition to their files.
    keep_copy: KeepCopy = "imports"

    @classmethod
    def without_registries(cls, layout: StoreLayout, activity: Activity | None = None) -> Session:
        """Return a session for operations that need only the store."""
        activity = activity or Activity()
        return cls(layout=layout, activity=activity, registries=KnownRegistries(layout, activity))

    def again(self, *, only: str | None) -> Session:
        """Return a session over the same store without any known indexes, and with `only` that registry, if
        given."""
        return Session(
            layout=self.layout,
            activity=self.activity,
            registries=self.registries.anew(only=only),
            connections=self.connections,
            self_checks=self.self_checks,
            auto_update=self.auto_update,
            host=self.host,
            load_policy=self.load_policy,
            admit_version=self.admit_version,
            accept_change=self.accept_change,
            alternates=self.alternates,
            keep_copy=self.keep_copy,
        )

    @property
    def refs(self) -> Refs:
        """The refs of the store."""
        return Refs(self.layout)

    def clock(self) -> float:
        """Return the time in seconds since 1970."""
        return self.activity.clock()

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970."""
        return self.activity.now_ms()

    def note(self, text: str) -> None:
        """Report one sentence."""
        self.activity.note(text)

    def close(self) -> None:
        """Close the connections."""
        self.registries.close()
