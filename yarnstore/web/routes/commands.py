"""`POST /commands/NAME`: the seven commands."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Response, Router, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from yarnstore.results import AutoUpdateStatus, CheckoutResult, UpdateResult
from yarnstore.web import commands, problems, requests
from yarnstore.web.ended import ended
from yarnstore.web.records import JobKind
from yarnstore.web.responses import JsonResponse
from yarnstore.web.service import Service


@post(
    "/check_model_updates", sync_to_thread=True, status_code=200, summary="Check installed models for updates"
)
def check_model_updates(
    service: NamedDependency[Service], data: JSONBody[requests.ModelArguments]
) -> list[commands.ModelUpdate]:
    """The installed models that have an update, or only the named one; queries the registries."""
    return commands.check_model_updates(service.store, data.model_id, refresh=not service.read_only)


@post("/list_installed_models", sync_to_thread=True, status_code=200, summary="List installed models")
def list_installed_models(service: NamedDependency[Service]) -> list[commands.InstalledEntry]:
    """The installed models."""
    return commands.list_installed_models(service.store)


@post(
    "/get_model_version_history", sync_to_thread=True, status_code=200, summary="List the versions of a model"
)
def get_model_version_history(
    service: NamedDependency[Service], data: JSONBody[requests.OneModelArguments]
) -> list[commands.PublishedVersion]:
    """All versions of a model, published or stored, the newest first."""
    return commands.get_model_version_history(service.store, data.model_id)


@post(
    "/get_model_registry", sync_to_thread=True, status_code=200, summary="List all versions in the registries"
)
def get_model_registry(service: NamedDependency[Service]) -> commands.RegistryContents:
    """All versions of all models, from the cached indexes of the registries."""
    return commands.get_model_registry(service.store)


@post("/enable_auto_updates", sync_to_thread=True, status_code=200, summary="Enable or disable auto-update")
def enable_auto_updates(
    service: NamedDependency[Service], data: JSONBody[requests.AutoUpdateArguments]
) -> AutoUpdateStatus:
    """Enable or disable auto-update, for all models or for one."""
    models = [data.model_id] if data.model_id else []
    found = service.store.set_auto_update(*models, enabled=data.enabled, policy=data.policy)
    service.scheduler.wake()
    return found


@post("/update_model", status_code=200, summary="Update a model")
async def update_model(
    service: NamedDependency[Service], data: JSONBody[requests.ChangeArguments]
) -> Response[commands.ModelChanged]:
    """Install the newest version that fits, or the given one; responds when done.

    If `wait` is false, responds at once with 202 and the Job.
    """
    spec = requests.named_version(data.model_id, data.version)
    return await _change(service, "update", {"model": spec}, UpdateResult, wait=data.wait)


@post("/rollback_model", status_code=200, summary="Roll a model back")
async def rollback_model(
    service: NamedDependency[Service], data: JSONBody[requests.ChangeArguments]
) -> Response[commands.ModelChanged]:
    """Install the previous version, or the given one; responds when done.

    If `wait` is false, responds at once with 202 and the Job.
    """
    requests.named_version(data.model_id, data.version)
    given = {"model": data.model_id, "version": data.version}
    return await _change(service, "rollback", given, CheckoutResult, wait=data.wait)


async def _change(
    service: NamedDependency[Service],
    kind: JobKind,
    given: dict[str, Any],
    result: type[UpdateResult] | type[CheckoutResult],
    *,
    wait: bool,
) -> Response[Any]:
    job = await asyncio.to_thread(service.jobs.add, kind, given)
    if not wait:
        return JsonResponse(job, status_code=202)
    last = await ended(service, job)
    if last.error is not None:
        return JsonResponse(last.error, status_code=last.error.status, media_type=problems.MEDIA_TYPE)
    if last.state != "done" or last.result is None:
        fault = problems.problem(409, "job-stopped", f"the job was {last.state}", job=last.id)
        return JsonResponse(fault, status_code=409, media_type=problems.MEDIA_TYPE)
    return JsonResponse(commands.changed(msgspec.convert(last.result, result, strict=False)))


router = Router(
    "/commands",
    route_handlers=[
        check_model_updates, update_model, rollback_model, get_model_version_history,
        list_installed_models, get_model_registry, enable_auto_updates,
    ],
    tags=["commands"],
)  # fmt: skip
