"""`ystore serve` from outside: its start, its end, and an update through the API."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.support.services import PATIENCE_S, needs_web, serving
from tests.support.stores import MODEL, make_site
from yarnstore import Store
from yarnstore.cli import run

pytestmark = needs_web


def test_an_update_and_a_rollback_through_the_api(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    with serving(site.home) as service:
        (installed,) = service.get("/models").json()
        assert installed["version"] == "1.0.0"
        (update,) = service.get("/updates").json()
        assert (update["wanted"], update["available"]) == ("1.2.0", True)
        updated = service.finished(service.post(f"/models/{MODEL}/update", json={}))
        assert updated["result"]["version"] == "1.2.0"
        undo = updated["undo"]
        back = service.finished(service.client.request(undo["method"], undo["path"], json=undo["body"]))
        assert (back["kind"], back["result"]["version"]) == ("rollback", "1.0.0")
        assert [job["kind"] for job in service.get("/jobs").json()] == ["rollback", "update"]
        assert service.stop() == 0


def test_a_login_link_works_once(tmp_path: Path) -> None:
    with serving(tmp_path / "home") as service, httpx.Client(base_url=service.url) as browser:
        assert browser.get("/api/v1/models").status_code == 401
        assert browser.get(service.ready["login_url"]).headers["location"] == "/"
        assert browser.get("/api/v1/models").json() == []
        assert httpx.get(service.ready["login_url"]).status_code == 401


def lines_of(process_id: int) -> str:
    """The command line and the environment that other programs of this user see of a process."""
    return Path(f"/proc/{process_id}/cmdline").read_bytes().decode()


def test_a_token_file_is_made_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with serving(tmp_path / "home", "--token-file", str(file)) as service:
        token = service.ready["token"]
        assert file.read_text() == f"{token}\n"
        assert file.stat().st_mode & 0o777 == 0o600
        assert len(token) >= 40
        assert token not in lines_of(service.process.pid)
    with serving(tmp_path / "home", "--token-file", str(file)) as service:
        assert service.ready["token"] == token


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--host", "0.0.0.0"), 2),
        (("--allow-host", "*.example.org"), 2),
        (("--tls-cert", "pyproject.toml"), 2),
        (("--token-file", "{folder}/short"), 2),
        (("--token-file", "{folder}/shown"), 1),
        (("--host", "203.0.113.1", "--plain-http"), 7),
    ],
    ids=["host", "wildcard", "half-tls", "short", "shown", "address"],
)
def test_what_is_not_safe_is_refused(
    tmp_path: Path, options: tuple[str, ...], code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, mode, text in (("short", 0o600, "secret"), ("shown", 0o644, "x" * 50)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    given = [option.format(folder=tmp_path) for option in options]
    assert run(["serve", "--home", str(tmp_path / "home"), *given]) == code
    said = capfd.readouterr()
    assert "error" in said.err
    assert "hint" in said.err or "\n  " in said.err
    assert "x" * 50 not in said.err


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'yarnstore', 'serve', '--ready-json', "
        "'--exit-with-parent', '--home', sys.argv[1]], stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "home")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        ready = json.loads(parent.stdout.readline())
        assert httpx.get(ready["url"] + "health").json() == {"status": "ok"}
        parent.kill()
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                httpx.get(ready["url"] + "health")
            except httpx.TransportError:
                break
            assert time.monotonic() < give_up_s
            time.sleep(0.05)


def test_a_browser_is_opened_without_the_token_in_the_list_of_processes(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {opened}.part; mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    env = {**os.environ, "BROWSER": str(browser)}
    with serving(tmp_path / "home", "--open", env=env) as service:
        give_up_s = time.monotonic() + PATIENCE_S
        while not opened.exists():
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
        url = opened.read_text().strip()
        assert url.startswith("file://")
        page = Path(url.removeprefix("file://"))
        assert page.stat().st_mode & 0o777 == 0o600
        (link,) = re.findall(r'url=([^"]+)"', page.read_text())
        with httpx.Client() as client:
            # As a browser does: from a file, so that the cookie would not follow a redirect.
            answer = client.get(link, headers={"Sec-Fetch-Site": "cross-site"})
            assert (answer.status_code, "set-cookie" in answer.headers) == (200, True)
            assert client.get(service.url).status_code == 200
        assert service.stop() == 0
    assert not page.exists()


def test_nothing_secret_is_logged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream, serving(tmp_path / "home", stderr=stream) as service:
        login = service.ready["login_url"].partition("=")[2]
        for path in (f"/login?token={login}", "/api/v1/models", "/api/v1/none", "/"):
            service.client.get(path)
            httpx.get(service.url + path.lstrip("/"), headers={"Authorization": "Bearer of-mine"})
        service.post("/updates", content=b"{")
        with socket.create_connection(("127.0.0.1", service.client.base_url.port or 0)) as line:
            line.sendall(
                b"GET /api/v1/models?of-mine HTTP/1.1\r\nAuthorization: Bearer of-mine\r\n: x\r\n\r\n"
            )
            line.recv(100)
        assert service.stop() == 0
        told = log.read_text()
        for secret in (service.ready["token"], login, "of-mine"):
            assert secret not in told


def test_a_registry_that_never_answers_keeps_nobody_waiting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, serving(tmp_path / "home") as service:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        silent.settimeout(PATIENCE_S)
        answers: list[int] = []

        def add() -> None:
            body = {"name": "silent", "url": address}
            answers.append(service.post("/registries", json=body, timeout=4 * PATIENCE_S).status_code)

        waiting = threading.Thread(target=add)
        waiting.start()
        with silent.accept()[0]:  # the service waits for it
            assert service.get("/models").json() == []
            assert service.stop() == 0
            waiting.join(PATIENCE_S)
        assert answers == [409]
    assert Store.open(tmp_path / "home").list_registries() == []


def test_many_requests_may_wait_at_once(tmp_path: Path) -> None:
    from yarnstore.web.access import Access
    from yarnstore.web.service import Service

    together = threading.Barrier(40)

    async def run() -> None:
        service = Service(lambda: Store.open(tmp_path / "home"), Access("t"))
        await service.start()
        await asyncio.gather(*(asyncio.to_thread(together.wait, PATIENCE_S) for _ in range(40)))
        await service.stop()

    asyncio.run(run())
    assert not together.broken
