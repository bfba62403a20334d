"""`ystore serve` from outside: its start, its end, and an update through the API."""

from __future__ import annotations

import asyncio
import json
import os
import plistlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.support.servers import self_signed
from tests.support.services import PATIENCE_S, Bell, needs_web, serving
from tests.support.stores import MODEL, make_site, remove_tree
from yarnstore import Store
from yarnstore.cli import run
from yarnstore.cli.commands import serve_

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


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGBREAK"])
def test_each_signal_that_ends_it_ends_it_with_0(tmp_path: Path, name: str) -> None:
    if not hasattr(signal, name):
        pytest.skip("only Windows has it")
    bell = Bell(name)
    command = [sys.executable, *bell.program, "serve", "--ready-json", "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["url"]
            bell.ring()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_a_login_link_works_once(tmp_path: Path) -> None:
    with serving(tmp_path / "home") as service, httpx.Client(base_url=service.url) as browser:
        assert browser.get("/api/v1/models").status_code == 401
        assert browser.get(service.ready["login_url"]).headers["location"] == "/"
        assert browser.get("/api/v1/models").json() == []
        assert httpx.get(service.ready["login_url"]).status_code == 401


def lines_of(process_id: int) -> str:
    """The command line and the environment that other programs of this user see of a process."""
    return Path(f"/proc/{process_id}/cmdline").read_bytes().decode()


def test_the_first_lines_say_how_tools_of_the_hub_and_of_images_reach_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "yarnstore", "serve", "--home", str(tmp_path / "home"), "--hub", "--oci"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(4)]
        finally:
            process.kill()
    url = lines[0].split()[-1]
    assert lines[1] == f"  Hub:     HF_ENDPOINT={url.rstrip('/')}\n"
    assert lines[2] == f"  images:  {httpx.URL(url).netloc.decode()}/library/MODEL:VERSION\n"
    assert lines[3].startswith(f"  log in:  {url}login?token=")


def test_a_token_file_is_made_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with serving(tmp_path / "home", "--token-file", str(file)) as service:
        token = service.ready["token"]
        assert file.read_text() == f"{token}\n"
        if os.name == "posix":
            assert file.stat().st_mode & 0o777 == 0o600
        assert len(token) >= 40
        if sys.platform == "linux":
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
        pytest.param(
            *(("--token-file", "{folder}/shown"), 1),
            marks=pytest.mark.skipif(os.name == "nt", reason="a mode does not say who may read there"),
        ),
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


@pytest.mark.skipif(os.name == "nt", reason="the browser is a script of a POSIX shell")
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


def test_a_service_whose_store_was_replaced_ends(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(home, stderr=subprocess.PIPE) as service:
        remove_tree(home)
        assert service.get("/overview").json()["problems"] == [f"The folder of the store was removed: {home}"]
        refused = service.post("/fsck", json={"quick": True})
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert not home.exists(), "nothing of the old store is written"
        with serving(home) as other:
            assert other.done(other.post("/fsck", json={"quick": True}))["problems"] == []
            jobs = (home / "jobs.json").read_bytes()
            refused = service.get("/models")
            assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
            assert service.process.wait(PATIENCE_S) == 1
            assert service.process.stderr is not None
            assert "was removed or replaced while this service ran" in service.process.stderr.read()
            assert (home / "jobs.json").read_bytes() == jobs
            assert other.get("/models").json() == []


def test_it_speaks_tls(tmp_path: Path) -> None:
    _, trusting = self_signed(tmp_path / "tls")
    files = ("--tls-cert", str(tmp_path / "tls" / "cert.pem"), "--tls-key", str(tmp_path / "tls" / "key.pem"))
    with serving(tmp_path / "home", *files) as service:
        assert service.url.startswith("https://127.0.0.1:")
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            httpx.get(service.url + "health")
        with httpx.Client(base_url=service.url, verify=trusting) as browser:
            login = browser.get(service.ready["login_url"])
            assert login.headers["location"] == "/"
            assert "; secure" in login.headers["set-cookie"].lower()
            assert browser.get("/api/v1/models").json() == []
            own = {"Origin": service.url.rstrip("/")}
            assert browser.post("/api/v1/login-links", headers=own).status_code == 201
            plain = {"Origin": own["Origin"].replace("https", "http")}
            assert browser.post("/api/v1/login-links", headers=plain).json()["code"] == "bad-origin"
        with pytest.raises(httpx.TransportError):
            httpx.get(service.url.replace("https", "http") + "health")
        assert service.stop() == 0


@pytest.mark.parametrize("wrong", ["cert.pem", "key.pem"])
def test_a_certificate_that_cannot_be_used_is_named(
    tmp_path: Path, wrong: str, capfd: pytest.CaptureFixture[str]
) -> None:
    self_signed(tmp_path / "tls")
    (tmp_path / "tls" / wrong).write_text("no PEM")
    files = ["--tls-cert", str(tmp_path / "tls" / "cert.pem"), "--tls-key", str(tmp_path / "tls" / "key.pem")]
    assert run(["serve", "--home", str(tmp_path / "home"), *files]) == 2
    assert "--tls-cert" in capfd.readouterr().err


def blocks(kind: str) -> list[str]:
    """The code blocks of a kind on the page about the service."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def options_of_serve(words: Sequence[str]) -> dict[str, object]:
    """The options of a command line that starts the service, as it reads them."""
    program, name, *options = words
    assert (Path(program).stem, name) == ("ystore", "serve")
    return dict(serve_.cli.make_context("serve", list(options)).params)


def test_the_recipe_for_systemd(tmp_path: Path) -> None:
    (unit,) = blocks("ini")
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    found = options_of_serve(shlex.split(line.replace("%h", "/home/me")))
    assert (found["port"], found["token_file"]) == (8571, "/home/me/.config/ystore.token")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    program = tmp_path / "ystore"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "ystore.service").write_text(unit.replace("%h/.local/bin/ystore", str(program)))
    ran = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", tmp_path / "ystore.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ystore.service" not in ran.stderr + ran.stdout


def test_the_recipe_for_launchd() -> None:
    (text,) = blocks("xml")
    found = plistlib.loads(text.encode())
    given = options_of_serve(found["ProgramArguments"])
    assert (given["port"], given["token_file"]) == (8571, "HOME/.config/ystore.token")
    assert found["KeepAlive"] == {"SuccessfulExit": False}
    assert found["RunAtLoad"] is True


def test_the_recipe_for_windows() -> None:
    (text,) = blocks("powershell")
    (program,) = re.findall(r'-Execute "([^"]*)"', text)
    (arguments,) = re.findall(r'-Argument "([^"]*)"', text)
    given = options_of_serve([program, *arguments.split()])
    assert (given["port"], given["token_file"]) == (8571, r"$env:APPDATA\ystore.token")
