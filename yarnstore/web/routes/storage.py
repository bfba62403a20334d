"""Routes of disk usage, deletion, checks and statistics."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from yarnstore.errors import UsageError
from yarnstore.registry.windows import parse_age_s
from yarnstore.results import Statistics, StorageUsage
from yarnstore.web import requests
from yarnstore.web.records import GcPlanned, Job
from yarnstore.web.service import Service


@get("/storage", sync_to_thread=True, summary="Show disk usage")
def get_storage(service: NamedDependency[Service]) -> StorageUsage:
    """The disk space of each version, of data that versions share, and of everything else."""
    return service.store.storage()


@post("/gc/plans", sync_to_thread=True, summary="Plan a gc")
def plan_gc(service: NamedDependency[Service], data: JSONBody[requests.GcRequest]) -> GcPlanned:
    """List each item that would be deleted or kept; delete nothing."""
    return service.plans.make(service.impatient, data)


@post("/gc/plans/{identity:str}/apply", sync_to_thread=True, status_code=202, summary="Apply a gc plan")
def apply_gc(
    service: NamedDependency[Service],
    identity: Annotated[str, PathParameter(description="The id of the plan.", max_length=64)],
) -> Job:
    """Delete the items of the plan; the job fails with `conflict` if the store has changed since."""
    return service.jobs.add("gc", service.plans.take(service.impatient, identity))


@post("/fsck", sync_to_thread=True, status_code=202, summary="Check the store")
def fsck(service: NamedDependency[Service], data: JSONBody[requests.FsckRequest]) -> Job:
    """Like `ystore fsck`; the result of the job is a FsckResult."""
    return service.jobs.add("fsck", _wanted(data))


@get("/stats", sync_to_thread=True, summary="Show bytes saved, use of models, durations and failures")
def get_stats(
    service: NamedDependency[Service],
    since: Annotated[
        str | None,
        QueryParameter(description="Operations within this time only, such as 30d.", max_length=20),
    ] = None,
) -> Statistics:
    """Like `ystore stats --json`."""
    return service.store.stats(since_s=None if since is None else parse_age_s(since))


def _wanted(data: requests.FsckRequest) -> dict[str, object]:
    if data.sample is not None and (data.quick or data.repair):
        raise UsageError("a sample cannot be combined with quick or repair")
    return {"quick": data.quick, "repair": data.repair, "sample": data.sample}


router = Router("/", route_handlers=[get_storage, get_stats, plan_gc, apply_gc, fsck], tags=["storage"])
