"""Every route refuses a stranger: enumerated from the application, not from a list."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.services import API, HAS_WEB, Running, needs_web, serving
from tests.support.stores import MODEL

if HAS_WEB:
    from litestar.routes import HTTPRoute

    from yarnstore import Store
    from yarnstore.web.access import Access
    from yarnstore.web.app import make_app
    from yarnstore.web.guard import Bucket, Guard
    from yarnstore.web.routes.pages import public_paths
    from yarnstore.web.service import Service

pytestmark = needs_web


def all_routes(home: Path) -> Iterator[tuple[str, str]]:
    """Each method and path that the application answers, with something in place of each parameter."""
    app = make_app(Service(lambda: Store.open(home), Access("t")))
    for route in app.routes:
        assert isinstance(route, HTTPRoute), route
        path = re.sub(r"\{[^}]*\}", "x", route.path_format)
        for method in sorted(route.http_handlers if hasattr(route, "http_handlers") else route.methods):
            yield method, path


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    found = list(all_routes(tmp_path_factory.mktemp("routes")))
    assert len(found) > 50
    assert ("POST", f"{API}/models/x/update") in found
    return found


@pytest.fixture(scope="module")
def stranger(service: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url) as client:
        yield client


def unhurried(client: httpx.Client, method: str, path: str, **options: object) -> httpx.Response:
    """A request that is sent again where too many were."""
    while True:
        answer = client.request(method, path, **options)  # type: ignore[arg-type]
        if answer.status_code != 429:
            return answer
        time.sleep(0.2)


def test_every_route_wants_a_token(stranger: httpx.Client, routes: list[tuple[str, str]]) -> None:
    let_in = []
    for method, path in routes:
        answer = unhurried(stranger, method, path)
        if answer.status_code not in (401, 303):
            let_in.append(path)
        elif answer.status_code == 401 and method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "unauthorized"
        else:
            assert (path, answer.headers.get("location")) == ("/", "/login") or method == "HEAD"
    assert set(let_in) <= {"/health", "/login"}


def test_the_files_of_the_login_page_alone_need_none(stranger: httpx.Client) -> None:
    for path in public_paths():
        assert unhurried(stranger, "GET", path).status_code == 200, path
    for path in ("/static/index.html", "/static/none.js", "/static/../../app.py", "/static/%2e%2e/app.py"):
        assert unhurried(stranger, "GET", path).status_code in (401, 404), path


@pytest.mark.parametrize(
    "host",
    [
        *("example.org", "localhost", "127.0.0.1", "127.0.0.1:1", "localhost.example.org:{port}", ""),
        *("0.0.0.0:{port}", "127.0.0.1:{port}.example.org", "127.0.0.2:{port}", "[::]:{port}"),
        "127.0.0.1:{port}, example.org",
    ],
)
def test_every_route_refuses_a_foreign_host(
    service: Running, routes: list[tuple[str, str]], host: str
) -> None:
    """Even with the token: a page elsewhere has the host of its own by DNS rebinding."""
    name = host.format(port=service.client.base_url.port)
    some = routes if host == "example.org" else routes[::9]
    for method, path in some:
        answer = unhurried(service.client, method, path, headers={"Host": name})
        assert answer.status_code in (400, 403), path
        if method != "HEAD" and answer.status_code == 403:
            assert answer.json()["code"] == "bad-host", path


def test_two_hosts_or_none_are_refused(service: Running) -> None:
    port = service.client.base_url.port
    for lines in (f"Host: 127.0.0.1:{port}\r\nHost: example.org\r\n", ""):
        with socket.create_connection(("127.0.0.1", port or 0)) as line:
            token = service.ready["token"]
            line.sendall(
                f"GET {API}/models HTTP/1.1\r\n{lines}Authorization: Bearer {token}\r\n\r\n".encode()
            )
            assert line.recv(100).split()[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.org",
        "null",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "x",
        "",
    ],
)
def test_every_route_refuses_a_foreign_origin(
    service: Running, routes: list[tuple[str, str]], origin: str
) -> None:
    name = origin.format(port=service.client.base_url.port)
    some = routes if origin == "http://example.org" else routes[::9]
    for method, path in some:
        answer = unhurried(service.client, method, path, headers={"Origin": name})
        assert answer.status_code == 403, path
        if method != "HEAD":
            assert answer.json()["code"] == "bad-origin", path


def test_our_own_names_are_let_in(service: Running) -> None:
    port = service.client.base_url.port
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        headers = {"Host": name, "Origin": f"http://{name.lower()}"}
        assert service.get("/jobs", headers=headers).status_code == 200, name


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer {cut}",
        "bearer",
        "Bearer é",
    ],
)
def test_a_wrong_token_is_refused(service: Running, header: str) -> None:
    token = service.ready["token"]
    given = header.format(token=token, cut=token[:-1]).encode()
    with httpx.Client(base_url=service.url, headers={b"Authorization": given}) as client:
        assert client.get(f"{API}/models").status_code in (401, 429)


# A request that would change something, of a job that does not exist.
CHANGE = f"{API}/jobs/none/pause"


def new_link(service: Running) -> str:
    """The path of a login link."""
    return str(service.post("/login-links").json()["path"])


def test_a_session_is_for_our_own_pages(service: Running) -> None:
    port = service.client.base_url.port
    ours = {"Origin": f"http://127.0.0.1:{port}"}
    with httpx.Client(base_url=service.url) as browser:
        answer = browser.get(new_link(service))
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "path=/" in cookie
        assert browser.get("/").status_code == 200
        assert browser.get(f"{API}/models").status_code == 200
        assert browser.post(CHANGE, headers=ours).status_code == 404
        # A page of another port of this host: its requests have the cookie.
        assert browser.post(CHANGE).status_code == 403
        for site in ("cross-site", "same-site"):
            told = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}
            assert browser.get(f"{API}/models", headers=told).status_code == 403
            assert browser.post(CHANGE, headers={**ours, **told}).status_code == 403
        assert browser.get(
            "/", headers={"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}
        ).is_success
        named = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
        assert browser.get(f"{API}/models", headers=named).status_code == 200
        browser.cookies.clear()
        browser.cookies.set(f"ystore_session_{port}", "x")
        assert browser.get(f"{API}/models").status_code == 401


@pytest.mark.parametrize(
    "others", ['a={"b": [1]}; ', "a[b]=2; ", "a=b c; ", "; ", "a; ", "path=/x; ", "{name}=old; "]
)
def test_cookies_of_other_ports_do_not_end_a_session(others: str) -> None:
    """A browser sends the cookies of all ports of a host, whatever those programs wrote into them."""
    access = Access(TOKEN)
    host, guard = ("host", "127.0.0.1:1"), Guard(ok, access, frozenset({"127.0.0.1:1"}))
    session = f"{access.cookie}={access.log_in(TOKEN)}"
    others = others.replace("{name}", access.cookie)
    for cookie in (others + session, f"{session}; {others}"):
        assert status_of(guard, host, ("cookie", cookie)) == 200
    assert status_of(guard, host, ("cookie", others)) == 401


def test_a_login_by_the_token(service: Running) -> None:
    with httpx.Client(base_url=service.url) as browser:
        refused = browser.post("/login", json={"token": "wrong"})
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert browser.post("/login", json={"token": service.ready["token"]}).status_code == 200
        assert browser.get(f"{API}/models").status_code == 200


def test_a_login_link_that_another_page_opened_sets_the_cookie_without_a_redirect(service: Running) -> None:
    """SameSite=Strict: a browser leaves the cookie out of a redirect that follows a foreign page."""
    with httpx.Client(base_url=service.url) as browser:
        answer = browser.get(new_link(service), headers={"Sec-Fetch-Site": "cross-site"})
        assert (answer.status_code, "location" in answer.headers) == (200, False)
        assert b"url=/" in answer.content
        assert browser.get(f"{API}/models").status_code == 200


def test_limits(service: Running) -> None:
    large = b'{"models": ["' + b"x" * (1 << 20) + b'"]}'
    assert service.post("/updates", content=large).status_code == 413

    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 40_000

    assert service.post("/updates", content=parts()).status_code == 413
    assert service.get("/models", headers={"X-Long": "x" * 40_000}).status_code in (400, 431)
    many = {f"X-{n}": "y" * 1000 for n in range(31)}
    assert service.get("/models", headers=many).status_code in (200, 400, 431)


def test_a_bucket_lets_so_many_through() -> None:
    now = [0.0]
    bucket = Bucket(10.0, 3.0, lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 0.1
    assert [bucket.take() for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def status_of(
    guard: Guard, *headers: tuple[str, str], method: str = "GET", path: str = "/api/v1/models"
) -> int:
    """What a guard answers."""
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers]
    asyncio.run(guard({"type": "http", "method": method, "path": path, "headers": pairs}, send, send))
    return int(told[0]["status"])


async def ok(_: Any, __: Any, send: Any) -> None:
    """An application that answers everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


TOKEN = "t" * 43


def test_the_tag_of_an_answer_ignores_small_changes_of_the_free_disk_space() -> None:
    def told(body: bytes, known: str = "") -> tuple[int, str]:
        async def answers(_: Any, __: Any, send: Any) -> None:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        pairs = [("host", "127.0.0.1:1"), ("authorization", f"Bearer {TOKEN}"), ("if-none-match", known)]
        headers = [(name.encode(), value.encode()) for name, value in pairs]
        scope = {"type": "http", "method": "GET", "path": "/api/v1/status", "headers": headers}
        asyncio.run(Guard(answers, Access(TOKEN), frozenset({"127.0.0.1:1"}))(scope, send, send))
        return sent[0]["status"], dict(sent[0]["headers"])[b"etag"].decode()

    status, tag = told(b'{"free_bytes":123456789,"packs":1}')
    assert (status, tag[:3]) == (200, 'W/"')
    assert told(b'{"free_bytes":121000000,"packs":1}', tag) == (304, tag)
    assert told(b'{"free_bytes":121000000,"packs":1}', f'"x", {tag[2:]}') == (304, tag)
    assert told(b'{"free_bytes":131000000,"packs":1}', tag)[0] == 200
    assert told(b'{"free_bytes":123456789,"packs":2}', tag)[0] == 200
    assert told(b'{"packs":1}')[1].startswith('"')


def test_strangers_do_not_use_up_what_our_own_pages_may_ask() -> None:
    host, bearer = ("host", "127.0.0.1:1"), ("authorization", f"Bearer {TOKEN}")
    guard = Guard(ok, Access(TOKEN), frozenset({"127.0.0.1:1"}), strangers=Bucket(0.0, 3.0))
    assert [status_of(guard, host) for _ in range(5)] == [401, 401, 401, 429, 429]
    assert status_of(guard, host, path="/login") == 429
    assert status_of(guard, host, bearer) == 200


def test_a_body_that_is_too_large_or_cut_short_ends_applications_without_handlers_too() -> None:
    async def reads(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await ok(scope, receive, send)

    def statuses(*bodies: bytes) -> list[int]:
        parts = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
        messages = [*parts, {"type": "http.disconnect"}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"127.0.0.1:1"), (b"authorization", f"Bearer {TOKEN}".encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
        asyncio.run(Guard(reads, Access(TOKEN), frozenset({"127.0.0.1:1"}))(scope, receive, send))
        return [message["status"] for message in sent if "status" in message]

    assert statuses(b"x" * 600_000, b"x" * 600_000) == [413]
    assert statuses(b"{") == []


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        *(
            ("https://models.example.org", 200),
            ("http://models.example.org", 200),
            ("http://127.0.0.1:1", 200),
        ),
        *(("https://127.0.0.1:1", 403), ("https://example.org", 403), ("https://models.example.org:1", 403)),
    ],
)
def test_a_proxy_may_add_tls_to_the_hosts_that_are_allowed(origin: str, status: int) -> None:
    hosts = frozenset({"127.0.0.1:1", "models.example.org"})
    access = Access(TOKEN)
    guard = Guard(ok, access, hosts, proxied=frozenset({"models.example.org"}))
    session = ("cookie", f"{access.cookie}={access.log_in(TOKEN)}")
    headers = (("host", "models.example.org"), ("origin", origin), session)
    assert status_of(guard, *headers, method="POST") == status


def test_json_that_is_nested_without_end_is_refused(service: Running) -> None:
    answer = service.request(
        "POST", "/diff", content=b"[" * 100_000, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")


def test_a_request_without_a_body_is_one_without_fields(service: Running) -> None:
    assert service.post("/gc/plans").status_code == 201
    missing = service.post("/diff")
    assert (missing.status_code, missing.json()["detail"]) == (400, "Object missing required field `old`")


def test_a_missing_path_and_method_are_named(service: Running) -> None:
    missing, other = service.get("/nothing"), service.request("PUT", "/models")
    assert (missing.json()["code"], other.json()["code"]) == ("no-such-path", "bad-method")
    assert f"{API}/nothing" in missing.json()["detail"]
    assert f"{API}/models has no method PUT" == other.json()["detail"]


def test_answers_have_the_headers_that_browsers_go_by(service: Running) -> None:
    for path in ("/", "/login", f"{API}/models", f"{API}/nothing", "/health"):
        headers = service.client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_a_file_is_not_sent_again_to_a_proxy_that_weakened_its_tag(service: Running) -> None:
    tag = service.client.get("/static/app.js").headers["etag"]
    for known in (tag, f"W/{tag}"):
        assert service.client.get("/static/app.js", headers={"If-None-Match": known}).status_code == 304


def test_the_date_of_an_answer_is_that_of_the_answer(service: Running) -> None:
    def dates(path: str) -> list[str]:
        found: list[str] = service.client.get(path).headers.get_list("date")
        return found

    for path in ("/health", f"{API}/nothing"):
        assert len(dates(path)) == 1
    before = dates("/health")
    service.until(lambda: dates("/health") != before)


def test_a_body_that_is_cut_short_is_no_defect_of_the_service(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(home) as service:
        port = service.client.base_url.port or 0
        with socket.create_connection(("127.0.0.1", port)) as line:
            head = (
                f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9\r\nExpect: 100-continue"
            )
            line.sendall(f"{head}\r\n\r\n".encode())
            assert b"100 Continue" in line.recv(100)  # the body is awaited
        assert service.client.get("/health").status_code == 200
        service.stop()
    assert "Traceback" not in capfd.readouterr().err


def test_a_service_that_only_reads_changes_nothing(home: Path, routes: list[tuple[str, str]]) -> None:
    """Not even what it could remember of a registry that the store has not read yet."""

    def tree() -> dict[str, int]:
        return {str(path): path.lstat().st_mtime_ns for path in home.rglob("*")}

    shutil.rmtree(home / "registries" / "made")
    before = tree()
    reading = {"/login", f"{API}/diff", f"{API}/login-links"}
    with serving(home, "--read-only") as service:
        for method, path in routes:
            if path.endswith("/events"):
                continue
            if method in ("GET", "HEAD", "OPTIONS") or path in reading:
                assert unhurried(service.client, method, path).status_code < 500, path
                continue
            answer = unhurried(service.client, method, path, json={})
            if "/commands/" in path and answer.status_code in (200, 400, 404):
                continue
            assert (answer.status_code, answer.json()["code"]) == (403, "read-only-service"), path
        assert service.get("/updates?refresh=true").status_code == 200
        assert service.get("/models").json()[0]["version"] == "1.0.0"
        assert service.get("/overview").json()["read_only"] is True
        assert Path(service.get(f"/models/{MODEL}/path").json()["path"]).is_dir()
        assert service.get(f"/models/{MODEL}/path?version=1.1.0").status_code == 403  # has no folder yet
        assert [offer["model"] for offer in service.get("/catalogue").json()] == [MODEL]
        assert service.post("/login-links").status_code == 201
        missing = service.finished(
            service.post("/diff", json={"old": f"{MODEL}@1.0.0", "new": f"{MODEL}@1.2.0"})
        )
        assert (missing["state"], missing["error"]["code"]) == ("failed", "read-only")
    assert tree() == before


def test_head_answers_as_get_does_without_a_body(service: Running) -> None:
    for path in (
        f"{API}/models",
        f"{API}/catalogue",
        "/",
        "/static/app.js",
        "/health",
        f"{API}/openapi.json",
    ):
        got, asked = service.client.get(path), service.client.head(path)
        assert (asked.status_code, asked.content) == (200, b""), path
        for name in ("content-type", "content-length", "etag"):
            assert asked.headers.get(name) == got.headers.get(name), (path, name)
    assert service.client.head(f"{API}/catalogue/missing").status_code == 404
    for path in ("/events", "/events/"):
        assert service.client.head(f"{API}{path}").status_code == 405
    assert service.client.head(f"{API}/fsck").status_code == 405


def test_a_program_that_looks_at_a_login_link_does_not_use_it_up(service: Running) -> None:
    link = service.post("/login-links").json()["path"]
    with httpx.Client(base_url=service.url) as visitor:
        assert visitor.head(link).status_code == 200
        assert visitor.get(link).status_code == 303
