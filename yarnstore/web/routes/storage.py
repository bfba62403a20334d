"""What fills the disk, what may be deleted, and whether all is sound."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter

from yarnstore.results import StorageUsage
from yarnstore.web import requests
from yarnstore.web.records import GcPlanned, Job
from yarnstore.web.service import Service


@get("/storage", sync_to_thread=True, summary="What fills the disk")
def get_storage(service: NamedDependency[Service]) -> StorageUsage:
    """Each version alone, what versions share, and the rest."""
    return service.store.storage()


@post("/gc/plans", sync_to_thread=True, summary="Plan what to delete")
def plan_gc(service: NamedDependency[Service], data: JSONBody[requests.GcRequest]) -> GcPlanned:
    """List what would be deleted and what stays, item by item; nothing is deleted."""
    return service.plans.make(service.impatient, data)


@post("/gc/plans/{identity:str}/apply", sync_to_thread=True, status_code=202, summary="Apply a plan")
def apply_gc(
    service: NamedDependency[Service],
    identity: Annotated[str, PathParameter(description="The id of the plan.", max_length=64)],
) -> Job:
    """Delete what the plan has; the job fails with `conflict` if the store changed since."""
    return service.jobs.add("gc", service.plans.take(service.impatient, identity))


@post("/fsck", sync_to_thread=True, status_code=202, summary="Check the store")
def fsck(service: NamedDependency[Service], data: JSONBody[requests.FsckRequest]) -> Job:
    """As `ystore fsck`; the result of the job is a FsckResult."""
    return service.jobs.add("fsck", {"quick": data.quick, "repair": data.repair})


router = Router("/", route_handlers=[get_storage, plan_gc, apply_gc, fsck], tags=["storage"])
