"""Routes of installed and stored models, and of the jobs that change them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, Router, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from yarnstore.errors import NotFoundError
from yarnstore.registry.spec import Spec
from yarnstore.results import History, InstalledModel, PinResult, RemoveResult, StoreStatus, Update
from yarnstore.web import requests
from yarnstore.web.records import Job, ModelPage, ModelPath, Overview
from yarnstore.web.responses import JsonResponse
from yarnstore.web.routes.names import Segment, Variant, Version, exact_spec_in, model_in, spec_in
from yarnstore.web.service import Service


@get("/overview", sync_to_thread=True, summary="Summarise the state of the store")
def overview(service: NamedDependency[Service]) -> Overview:
    """Whether all models are up to date and verified, and what to do if not."""
    return service.overview()


@get("/status", sync_to_thread=True, summary="Show the store's contents and disk usage")
def status(service: NamedDependency[Service]) -> StoreStatus:
    """Like `ystore status --json`."""
    return service.store.status()


@get("/models", sync_to_thread=True, summary="List installed models")
def list_models(service: NamedDependency[Service]) -> Response[list[InstalledModel]]:
    """Like `ystore list --json`."""
    return JsonResponse(service.installed.data(service.store))


@get("/models/{model:str}", sync_to_thread=True, summary="Show a model")
def get_model(service: NamedDependency[Service], model: Segment) -> ModelPage:
    """The installed version of a model, what its registry says about it, and the model's history."""
    name = model_in(model)
    store = service.store
    installed = next((item for item in service.installed.rows(store) if item.model == name), None)
    try:
        shown = name if installed is None else f"{name}:{installed.variant}@{installed.version}"
        details = store.show(shown)
    except NotFoundError:
        details = None
    return ModelPage(installed, details, store.get_version_history(name))


@get("/models/{model:str}/history", sync_to_thread=True, summary="Show the history of a model")
def get_history(service: NamedDependency[Service], model: Segment) -> History:
    """Like `ystore log --json`."""
    return service.store.get_version_history(model_in(model))


@get("/models/{model:str}/path", sync_to_thread=True, summary="Get the path of a version")
def get_path(
    service: NamedDependency[Service], model: Segment, version: Version = None, variant: Variant = None
) -> ModelPath:
    """The path to open, of the installed version or of another stored one.  Recorded as a use."""
    return ModelPath(service.path(spec_in(model, version, variant)))


@get("/updates", sync_to_thread=True, summary="List updates of installed models")
def list_updates(
    service: NamedDependency[Service],
    refresh: Annotated[
        bool, QueryParameter(description="Query the registries instead of their cached indexes.")
    ] = False,
) -> list[Update]:
    """Like `ystore outdated --json`."""
    return service.updates(refresh=refresh)


@post("/updates", sync_to_thread=True, status_code=202, summary="Update several models or all")
def update_all(service: NamedDependency[Service], data: JSONBody[requests.UpdateAllRequest]) -> Job:
    """Update the models named, or all that are installed."""
    return service.jobs.add("update-all", {"models": [spec_in(model) for model in data.models]})


@post("/models/{model:str}/fetch", sync_to_thread=True, status_code=202, summary="Download a version")
def fetch(service: NamedDependency[Service], model: Segment, data: JSONBody[requests.VersionRequest]) -> Job:
    """Download a version without installing it."""
    return service.jobs.add("fetch", _wanted(model, data))


@post("/models/{model:str}/checkout", sync_to_thread=True, status_code=202, summary="Install a version")
def checkout(
    service: NamedDependency[Service], model: Segment, data: JSONBody[requests.VersionRequest]
) -> Job:
    """Install a version, downloading it if needed."""
    return service.jobs.add("checkout", _wanted(model, data))


@post("/models/{model:str}/update", sync_to_thread=True, status_code=202, summary="Update a model")
def update(service: NamedDependency[Service], model: Segment, data: JSONBody[requests.UpdateRequest]) -> Job:
    """Download and install the newest version that fits, or the given one."""
    spec = spec_in(model, data.version, data.variant)
    return service.jobs.add(
        "update", {"model": spec, "to": data.to, "major": data.major, "force": data.force}
    )


@post("/models/{model:str}/rollback", sync_to_thread=True, status_code=202, summary="Roll a model back")
def rollback(
    service: NamedDependency[Service], model: Segment, data: JSONBody[requests.RollbackRequest]
) -> Job:
    """Install the previous version, or the given one."""
    return service.jobs.add("rollback", {"model": model_in(model), "version": data.version})


@put("/models/{model:str}/pin", sync_to_thread=True, summary="Pin a model")
def pin(service: NamedDependency[Service], model: Segment, data: JSONBody[requests.PinRequest]) -> PinResult:
    """Protect a version from update and gc, or limit updates to a range or a variant."""
    return service.store.pin(_pinned(model, data.spec))


@delete("/models/{model:str}/pin", sync_to_thread=True, status_code=200, summary="Unpin a model")
def unpin(
    service: NamedDependency[Service],
    model: Segment,
    spec: Annotated[
        str | None,
        QueryParameter(description="The pin to remove, as it was given when pinning.", max_length=300),
    ] = None,
) -> PinResult:
    """Remove a pin."""
    return service.store.unpin(_pinned(model, spec))


@delete("/models/{model:str}", sync_to_thread=True, status_code=200, summary="Remove a model")
def remove_model(service: NamedDependency[Service], model: Segment) -> RemoveResult:
    """Remove all versions of a model; gc then frees their disk space."""
    return service.store.remove(model_in(model), whole_model=True)


@delete(
    "/models/{model:str}/versions/{version:str}",
    sync_to_thread=True,
    status_code=200,
    summary="Remove a version",
)
def remove_version(
    service: NamedDependency[Service],
    model: Segment,
    version: Annotated[str, PathParameter(description="The version.", max_length=200)],
    variant: Variant = None,
) -> RemoveResult:
    """Remove one version; the installed one is refused with 409."""
    return service.store.remove(exact_spec_in(model, version, variant))


@post("/models/{model:str}/restore", sync_to_thread=True, status_code=202, summary="Undo a removal")
def restore(
    service: NamedDependency[Service], model: Segment, data: JSONBody[requests.RestoreRequest]
) -> Job:
    """Store removed versions again, as `removed` and `pin` of the removal say; downloads what gc deleted."""
    removed = [msgspec.to_builtins(item) for item in data.removed]
    for item in data.removed:
        exact_spec_in(model, item.version, item.variant)
    if data.pin is not None:
        Spec.parse_stored(f"{model_in(model)}{data.pin}")
    return service.jobs.add("restore", {"model": model_in(model), "removed": removed, "pin": data.pin})


def _pinned(model: str, spec: str | None) -> str:
    """Return the spec to pin: `1.0.0` and `^1.1` select versions of the model, `:cpu-int4` a variant."""
    name = model_in(model)
    if not spec:
        return name
    if spec != name and not spec.startswith((f"{name}@", f"{name}:")):
        spec = f"{name}{spec}" if spec[0] in ":@" else f"{name}@{spec}"
    return str(Spec.parse(spec))


def _wanted(model: str, data: JSONBody[requests.VersionRequest]) -> dict[str, object]:
    spec_in(model, data.version, data.variant)
    return {
        "model": model_in(model),
        "version": data.version,
        "variant": data.variant,
        "force": data.force,
    }


router = Router(
    "/",
    route_handlers=[
        overview, status, list_models, get_model, get_history, get_path, list_updates, update_all,
        fetch, checkout, update, rollback, pin, unpin, remove_model, remove_version, restore,
    ],
    tags=["models"],
)  # fmt: skip
