"""Routes of jobs and of their events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from litestar import Router, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import TooManyRequestsException
from litestar.params import PathParameter
from litestar.response import Stream

from yarnstore.web.records import Job
from yarnstore.web.service import Service

Identity = Annotated[str, PathParameter(description="The id of the job.", max_length=64)]


@get("/jobs", sync_to_thread=True, summary="List jobs")
def list_jobs(service: NamedDependency[Service]) -> list[Job]:
    """All jobs, newest first."""
    return service.jobs.all()


@get("/jobs/{identity:str}", sync_to_thread=True, summary="Show a job")
def get_job(service: NamedDependency[Service], identity: Identity) -> Job:
    """A job, with its result."""
    return service.jobs.get(identity)


@delete("/jobs/{identity:str}", sync_to_thread=True, summary="Remove a job from the list")
def delete_job(service: NamedDependency[Service], identity: Identity) -> None:
    """Remove a job that is not running from the list."""
    service.jobs.forget(identity)


@post("/jobs/{identity:str}/pause", sync_to_thread=True, status_code=200, summary="Pause a job")
def pause_job(service: NamedDependency[Service], identity: Identity) -> Job:
    """Stop a job; `resume` continues where it stopped."""
    return service.jobs.pause(identity)


@post("/jobs/{identity:str}/resume", sync_to_thread=True, status_code=200, summary="Resume a job")
def resume_job(service: NamedDependency[Service], identity: Identity) -> Job:
    """Continue a paused or interrupted job, or retry a failed or cancelled one."""
    return service.jobs.resume(identity)


@post("/jobs/{identity:str}/cancel", sync_to_thread=True, status_code=200, summary="Cancel a job")
def cancel_job(service: NamedDependency[Service], identity: Identity) -> Job:
    """Stop a job for good; downloaded data is kept for the next try."""
    return service.jobs.cancel(identity)


@get(
    "/events",
    media_type="text/event-stream",
    summary="Stream events of all jobs and of the store (server-sent events)",
)
async def events(service: NamedDependency[Service]) -> Stream:
    """`job` events, first one for each job, then one for each change; `store` events for the store."""
    return _stream(service, service.events.stream(service.jobs.all))


@get(
    "/jobs/{identity:str}/events",
    media_type="text/event-stream",
    summary="Stream events of a job (server-sent events)",
)
async def job_events(service: NamedDependency[Service], identity: Identity) -> Stream:
    """`job` events of one job."""
    service.jobs.get(identity)
    return _stream(service, service.events.stream(lambda: [service.jobs.get(identity)], only=identity))


def _stream(service: Service, events: AsyncIterator[bytes]) -> Stream:
    """Return a stream that proxies do not buffer, as nginx would."""
    if service.events.are_many:
        raise TooManyRequestsException("too many streams of events are open", headers={"retry-after": "3"})
    return Stream(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


router = Router(
    "/",
    route_handlers=[
        list_jobs, get_job, delete_job, pause_job, resume_job, cancel_job, events, job_events,
    ],
    tags=["jobs"],
)  # fmt: skip
