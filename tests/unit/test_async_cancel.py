"""Cancelling from asyncio stops the work, and leaves a store that goes on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from tests.support.stores import MODEL, assert_serves, assert_whole, make_site
from yarnstore import AsyncStore, Progress


def test_cancelling_stops_the_work(tmp_path: Path) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    threads: set[int] = set()

    async def main() -> None:
        started = asyncio.Event()
        loop = asyncio.get_running_loop()
        after = 0
        cancelled = False

        def show(event: Progress) -> None:
            nonlocal after
            after += cancelled
            threads.add(threading.get_ident())
            loop.call_soon_threadsafe(started.set)
            threading.Event().wait(0.05)

        models = AsyncStore(site.store())
        task = asyncio.create_task(models.checkout(f"{MODEL}@1.0.0", progress=show))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled = True
        assert await models.list_installed_models() == []
        await asyncio.sleep(0.2)
        assert after == 0, "the thread went on"
        await models.checkout(f"{MODEL}@1.0.0")
        await models.path(MODEL)
        await models.close()

    asyncio.run(main())
    assert threading.get_ident() not in threads
    assert_whole(site.home, site)
    assert_serves(site.home, site, "1.0.0")
