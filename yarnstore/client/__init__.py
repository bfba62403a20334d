"""A client of `ystore serve`, for Python processes that share one service.

    from yarnstore.client import Client

    with Client.start() as client:
        job = client.update_model("phi-3-mini")
        for state in job:
            print(state.phase, state.bytes_done, "of", state.bytes_total)
        print(job.wait().version)

    client         `Client`, whose methods are named as those of `Store`
    handles        `JobHandle`: one job, its progress and its result
    connection     requests, ETags, event streams; errors of httpx and problem documents become ours
    sidecar        `ystore serve` as a child process

docs/client.md explains it.  It needs no extra; the process that serves needs `web`.
"""

from __future__ import annotations

from yarnstore.client.client import Client
from yarnstore.client.connection import StoreChanged
from yarnstore.client.handles import JobHandle
from yarnstore.web.records import AutoUpdatePage, GcPlanned, Job, LoginLink, ModelPage, Overview

__all__ = [
    "AutoUpdatePage",
    "Client",
    "GcPlanned",
    "Job",
    "JobHandle",
    "LoginLink",
    "ModelPage",
    "Overview",
    "StoreChanged",
]
