"""Cancelling from asyncio stops the work, and leaves a store that goes on."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from tests.support.servers import Reply, ScriptedServer, Seen, files
from tests.support.stores import MODEL, assert_serves, assert_whole, make_site
from yarnstore import AsyncStore, Progress
from yarnstore.errors import UsageError


@pytest.mark.parametrize("fault", ["silent", "busy"])
def test_cancelling_does_not_wait_for_a_server(tmp_path: Path, fault: str) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    asked = threading.Event()
    root = site.registry
    good = files(
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    )

    def script(seen: Seen) -> Reply:
        if "/packs/" not in seen.path or not seen.path.endswith(".pack"):
            return good(seen)
        asked.set()
        if fault == "busy":
            return Reply(status=503, headers={"Retry-After": "30"})
        return Reply(delay_s=20)

    async def main(url: str) -> None:
        async with AsyncStore.open(tmp_path / "own") as models:
            await models.add_registry("made", url)
            task = asyncio.create_task(models.fetch(f"{MODEL}@1.0.0"))
            assert await asyncio.to_thread(asked.wait, 10)
            await asyncio.sleep(0.3)
            began_s = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began_s < 5

    with ScriptedServer(script) as server:
        asyncio.run(main(server.url))


@pytest.mark.parametrize("call", ["add_registry", "refresh_registries", "show", "search", "lint_registry"])
def test_a_call_without_progress_stops_too_while_it_waits_for_a_server(tmp_path: Path, call: str) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    asked = threading.Event()

    def script(seen: Seen) -> Reply:
        asked.set()
        return Reply(delay_s=20)

    async def main(url: str) -> None:
        if call != "add_registry":
            (site.home / "config.toml").write_text(f'[[registries]]\nname = "slow"\nurl = "{url}"\n')
        async with AsyncStore.open(site.home) as models:
            calls = {
                "add_registry": lambda: models.add_registry("slow", url),
                "refresh_registries": lambda: models.refresh_registries("slow"),
                "show": lambda: models.show("other"),
                "search": lambda: models.search("other"),
                "lint_registry": lambda: models.lint_registry(url),
            }
            task = asyncio.create_task(calls[call]())
            assert await asyncio.to_thread(asked.wait, 10)
            began_s = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began_s < 5
            names = [source.name for source in models.store.settings.registries]
            assert names == (["made"] if call == "add_registry" else ["slow", "made"])
            assert await models.list_installed_models() is not None

    with ScriptedServer(script) as server:
        asyncio.run(main(server.url))


def test_a_closed_store_answers_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        models = AsyncStore.open(tmp_path / "home")
        assert await models.list_installed_models() == []
        await models.close()
        await models.close()
        with pytest.raises(UsageError, match="closed"):
            await models.list_installed_models()
        assert models.store.list_installed_models() == []

    asyncio.run(main())


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
