"""`Client`: the methods of `Store`, executed by a service."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

from yarnstore.client.connection import Connection, Query, StoreChanged
from yarnstore.client.handles import JobHandle
from yarnstore.client.sidecar import Sidecar
from yarnstore.core.names import model_dirname
from yarnstore.errors import UsageError
from yarnstore.registry.spec import Spec
from yarnstore.results import (
    AutoUpdateStatus,
    CheckoutResult,
    DiffResult,
    FetchResult,
    FsckResult,
    GcResult,
    History,
    InspectResult,
    InstalledModel,
    Offer,
    PinResult,
    Readme,
    RegistryInfo,
    RemoveResult,
    RestoreResult,
    SettingInfo,
    Statistics,
    StorageUsage,
    StoreStatus,
    Update,
    UpdateResult,
    UpdateSummary,
    VersionDetails,
)
from yarnstore.web.records import (
    AutoUpdatePage,
    GcPlanned,
    Job,
    LoginLink,
    ModelPage,
    ModelPath,
    Overview,
)

_PAGE = 1000


class Client:
    """A service that other processes may share; its methods are named as those of `Store`.

    A method that takes long returns a `JobHandle` at once; `wait` returns what the method of `Store` does.
    Errors are those of `Store`; also TransientError if the service cannot be reached or is asked too often,
    and UsageError if it refuses the token.  Threads may share a client.
    """

    def __init__(
        self, url: str, token: str, *, timeout_s: float = 60.0, tls_ca: str | os.PathLike[str] | None = None
    ) -> None:
        """Connect to the service at `url`; `tls_ca` is a file of certificates (PEM) to trust.

        `timeout_s` is how long to wait for an answer.  Nothing is sent yet.  Raises: UsageError.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(
                f"{url!r} is not the address of a service", hint="give one such as http://127.0.0.1:8571/"
            )
        ca = os.fspath(tls_ca) if tls_ca is not None else None
        self._connection = Connection(url, token, timeout_s=timeout_s, tls_ca=ca)
        self.sidecar: Sidecar | None = None  # the service that `start` started

    @classmethod
    def from_ready(cls, ready: str | bytes | Mapping[str, Any]) -> Self:
        """Connect to a service by what `ystore serve --ready-json` printed.  Raises: UsageError."""
        try:
            found = ready if isinstance(ready, Mapping) else json.loads(ready)
            url, token = found["url"], found["token"]
        except (ValueError, KeyError, TypeError):
            raise UsageError("this is not what `ystore serve --ready-json` prints") from None
        return cls(url, token)

    @classmethod
    def start(
        cls,
        home: str | os.PathLike[str] | None = None,
        *,
        options: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "yarnstore"),
    ) -> Self:
        """Start `ystore serve` as a child process, and connect to it.

        `home` is the store, else as `Store.open`; `options` are more options of `ystore serve`; `program` is
        how `ystore` is called.  The service ends with `close`, and when this process ends.

        Raises: ConfigError without the extra `web`; LockTimeoutError if another service has this store;
        NotFoundError without `program`.
        """
        place = () if home is None else ("--home", os.fspath(home))
        sidecar = Sidecar([*program, "serve", *place, *options])
        client = cls.from_ready(sidecar.ready)
        client.sidecar = sidecar
        return client

    @property
    def url(self) -> str:
        """The address of the service."""
        return f"{self._connection.url}/"

    def close(self) -> None:
        """Close the connections; end the service if `start` started it. Jobs continue at the next start."""
        self._connection.close()
        if self.sidecar is not None:
            self.sidecar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- queries -------------------------------------------------------------------------------

    def overview(self) -> Overview:
        """Whether all models are up to date and verified, and what to do if not."""
        return self._connection.get(Overview, "/overview")

    def status(self) -> StoreStatus:
        """As `Store.status`."""
        return self._connection.get(StoreStatus, "/status")

    def storage(self) -> StorageUsage:
        """As `Store.storage`."""
        return self._connection.get(StorageUsage, "/storage")

    def list_installed_models(self, *models: str) -> list[InstalledModel]:
        """As `Store.list_installed_models`; unknown names are ignored."""
        found = self._connection.get(list[InstalledModel], "/models")
        return [item for item in found if not models or item.model in models]

    def get_model(self, model: str) -> ModelPage:
        """Return the installed version of a model, its standing in the registry, and its history."""
        return self._connection.get(ModelPage, _model(model))

    def get_version_history(self, model: str) -> History:
        """As `Store.get_version_history`."""
        return self._connection.get(History, _model(model, "history"))

    def path(self, spec: str) -> str:
        """As `Store.path`, but downloads nothing.  The service keeps the version until it ends."""
        model, query = _version(spec)
        return self._connection.get(ModelPath, _model(model, "path"), query).path

    def search(self, text: str = "") -> list[Offer]:
        """As `Store.search`."""
        found: list[Offer] = []
        while True:
            query: Query = {"q": text, "limit": _PAGE, "offset": len(found)}
            page = self._connection.get(list[Offer], "/catalogue", query)
            found += page
            if len(page) < _PAGE:
                return found

    def show(self, spec: str) -> VersionDetails:
        """As `Store.show`."""
        model, query = _version(spec)
        return self._connection.get(VersionDetails, _offered(model), query)

    def inspect(self, what: str) -> InspectResult:
        """As `Store.inspect`, for the spec of a stored version."""
        model, query = _version(what)
        return self._connection.get(InspectResult, _offered(model, "contents"), query)

    def readme(self, spec: str) -> Readme:
        """As `Store.readme`."""
        model, query = _version(spec)
        return self._connection.get(Readme, _offered(model, "readme"), query)

    def check_for_updates(self, *models: str, refresh: bool = True) -> list[Update]:
        """As `Store.check_for_updates`; names of models that are not installed are ignored."""
        found = self._connection.get(list[Update], "/updates", {"refresh": refresh})
        return [item for item in found if not models or item.model in models]

    def command(self, name: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON is any
        """Call one of the seven commands by name, and return its response as plain JSON values.

        docs/http-api.md lists the commands with their arguments and answers.
        """
        return self._connection.ask(object, "POST", f"/commands/{name}", arguments)

    # --- changes --------------------------------------------------------------------------------

    def fetch(self, spec: str, *, force: bool = False) -> JobHandle[FetchResult]:
        """As `Store.fetch`, as a job."""
        model, query = _version(spec)
        return self._start(_model(model, "fetch"), {**query, "force": force})

    def checkout(self, spec: str, *, force: bool = False) -> JobHandle[CheckoutResult]:
        """As `Store.checkout`, as a job."""
        model, query = _version(spec)
        return self._start(_model(model, "checkout"), {**query, "force": force})

    def update_model(
        self, model: str, *, major: bool = False, to: str | None = None, force: bool = False
    ) -> JobHandle[UpdateResult]:
        """As `Store.update_model`, as a job."""
        name, query = _version(model)
        given = {**query, "major": major, "to": to, "force": force}
        return self._start(_model(name, "update"), given)

    def update_models(self, *models: str) -> JobHandle[UpdateSummary]:
        """As `Store.update_models`, as a job."""
        return self._start("/updates", {"models": list(models)})

    def rollback_model(self, model: str, version: str | None = None) -> JobHandle[CheckoutResult]:
        """As `Store.rollback_model`, as a job."""
        return self._start(_model(model, "rollback"), {"version": version})

    def pin(self, spec: str) -> PinResult:
        """As `Store.pin`."""
        model, pin = _pin(spec)
        return self._connection.ask(PinResult, "PUT", _model(model, "pin"), {"spec": pin})

    def unpin(self, spec: str) -> PinResult:
        """As `Store.unpin`."""
        model, pin = _pin(spec)
        return self._connection.ask(PinResult, "DELETE", _model(model, "pin"), query={"spec": pin})

    def remove(self, spec: str, *, whole_model: bool = False) -> RemoveResult:
        """As `Store.remove`."""
        model, query = _version(spec)
        version, variant = query.get("version"), query.get("variant")
        if whole_model and version is None and variant is None:
            return self._connection.ask(RemoveResult, "DELETE", _model(model))
        if whole_model or version is None:
            raise UsageError(
                f"{spec} does not name a version", hint="give MODEL@VERSION, or whole_model=True"
            )
        path = _model(model, "versions", str(version))
        return self._connection.ask(RemoveResult, "DELETE", path, query={"variant": variant})

    def restore(self, removed: RemoveResult) -> JobHandle[RestoreResult]:
        """As `Store.restore`, as a job."""
        given = {"removed": [asdict(item) for item in removed.removed], "pin": removed.pin}
        return self._start(_model(removed.model, "restore"), given)

    def diff(self, old: str, new: str) -> JobHandle[DiffResult]:
        """As `Store.diff` of two specs, as a job."""
        return self._start("/diff", {"old": old, "new": new})

    def plan_gc(
        self,
        *,
        keep: int | None = None,
        keep_within_s: float | None = None,
        grace_s: float | None = None,
        max_size_bytes: int | None = None,
        unused_s: float | None = None,
        repack: bool = False,
    ) -> GcPlanned:
        """List what `gc` would free and what stays; the parameters are those of `Store.plan_gc`."""
        given = {
            "keep": keep, "keep_within_s": keep_within_s, "grace_s": grace_s,
            "max_size_bytes": max_size_bytes, "unused_s": unused_s, "repack": repack,
        }  # fmt: skip
        return self._connection.ask(GcPlanned, "POST", "/gc/plans", given)

    def gc(self, plan: GcPlanned) -> JobHandle[GcResult]:
        """Delete what a plan lists, as a job.  Raises: ConflictError if the store changed since."""
        return self._start(f"/gc/plans/{plan.id}/apply", None)

    def fsck(
        self, *, quick: bool = False, repair: bool = False, sample: float | None = None
    ) -> JobHandle[FsckResult]:
        """As `Store.fsck`, as a job."""
        return self._start("/fsck", {"quick": quick, "repair": repair, "sample": sample})

    def stats(self, *, since_s: float | None = None) -> Statistics:
        """As `Store.stats`; `since_s` is rounded up to whole minutes."""
        since = None if since_s is None else f"{min(999_999, math.ceil(since_s / 60))}m"
        return self._connection.ask(Statistics, "GET", "/stats", query={"since": since})

    # --- jobs ------------------------------------------------------------------------------------

    def list_jobs(self) -> list[Job]:
        """All jobs of the service, the newest first."""
        return self._connection.get(list[Job], "/jobs")

    def job(self, identity: str) -> JobHandle[Any]:
        """A job by its id.  Raises: NotFoundError."""
        return JobHandle(self._connection, self._connection.get(Job, f"/jobs/{identity}"))

    def events(self) -> Iterator[Job | StoreChanged]:
        """Yield each job, then each change of a job or of the store, until the service ends.

        Raises: TransientError if the connection is lost.
        """
        return self._connection.events("/events")

    # --- settings --------------------------------------------------------------------------------

    def list_settings(self) -> list[SettingInfo]:
        """As `Store.list_settings`."""
        return self._connection.get(list[SettingInfo], "/settings")

    def change_settings(self, changes: Mapping[str, str | int | float | bool | None]) -> list[SettingInfo]:
        """As `Store.change_settings`."""
        return self._connection.ask(list[SettingInfo], "PATCH", "/settings", dict(changes))

    def get_auto_update(self) -> AutoUpdatePage:
        """The settings of auto-update, and the time of the next check."""
        return self._connection.get(AutoUpdatePage, "/auto-update")

    def set_auto_update(
        self,
        *models: str,
        enabled: bool,
        policy: str | None = None,
        windows: Sequence[str] | None = None,
        jitter: str | None = None,
    ) -> AutoUpdateStatus:
        """As `Store.set_auto_update`."""
        given = {
            "models": list(models), "enabled": enabled, "policy": policy,
            "windows": None if windows is None else list(windows), "jitter": jitter,
        }  # fmt: skip
        return self._connection.ask(AutoUpdatePage, "PUT", "/auto-update", given).status

    def reset_auto_update(self, *models: str) -> AutoUpdateStatus:
        """As `Store.reset_auto_update`, model by model."""
        for model in models:
            self._connection.ask(AutoUpdatePage, "DELETE", f"/auto-update/models/{model_dirname(model)}")
        return self.get_auto_update().status

    def list_registries(self) -> list[RegistryInfo]:
        """As `Store.list_registries`."""
        return self._connection.get(list[RegistryInfo], "/registries")

    def add_registry(self, name: str, url: str) -> RegistryInfo:
        """As `Store.add_registry`, for a registry on a web server."""
        return self._connection.ask(RegistryInfo, "POST", "/registries", {"name": name, "url": url})

    def set_mirrors(self, name: str, mirrors: Sequence[str]) -> RegistryInfo:
        """As `Store.set_mirrors`, of mirrors on web servers."""
        given = {"mirrors": list(mirrors)}
        return self._connection.ask(RegistryInfo, "PUT", f"/registries/{name}/mirrors", given)

    def remove_registry(self, name: str) -> None:
        """As `Store.remove_registry`."""
        self._connection.ask(object, "DELETE", f"/registries/{name}")

    def refresh_registry(self, name: str) -> RegistryInfo:
        """Fetch the newest index of a registry.  Raises: as `Store.refresh_registries`."""
        return self._connection.ask(RegistryInfo, "POST", f"/registries/{name}/refresh")

    def make_login_link(self) -> LoginLink:
        """Create a login address for one browser, as a path below `url`; it works once."""
        return self._connection.ask(LoginLink, "POST", "/login-links")

    def _start(self, path: str, body: object) -> JobHandle[Any]:
        return JobHandle(self._connection, self._connection.ask(Job, "POST", path, body))


def _version(text: str) -> tuple[str, dict[str, str | None]]:
    """Return the model of a spec, and its version and variant as query parameters.  Raises: SpecError."""
    spec = Spec.parse(text)
    version = None if spec.selector is None else str(spec.selector)
    return spec.model, {"version": version, "variant": spec.variant}


def _pin(text: str) -> tuple[str, str | None]:
    """Return the model of a spec, and its rest."""
    model = Spec.parse_stored(text).model
    return model, text.strip()[len(model) :] or None


def _model(model: str, *rest: str) -> str:
    return "/".join(["/models", model_dirname(model), *rest])


def _offered(model: str, *rest: str) -> str:
    return "/".join(["/catalogue", model_dirname(model), *rest])
