"""Waiting for the end of a job in the event loop."""

from __future__ import annotations

import asyncio

from yarnstore.web.records import Job
from yarnstore.web.service import Service


async def ended(service: Service, job: Job) -> Job:
    """Return a job once it is neither running nor queued."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(done.set)

    service.jobs.when_ended(job.id, tell)
    await done.wait()
    return service.jobs.get(job.id)
