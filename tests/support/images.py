"""Registries of images for tests: Debian's docker-registry, and one in this process that can be told to fail.

with docker_registry(tmp_path / "registry") as host: …     # host is 127.0.0.1:PORT; may skip
with FakeRegistry() as registry: …                         # registry.host, .contents, .seen, .before
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

PATIENCE_S = 20.0
USER, PASSWORD = "me", "secret"
# bcrypt of the password, which is all that docker-registry reads.
_HTPASSWD = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
_CONFIG = """
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}", secret: x}}
"""
_AUTH = """
auth: {{htpasswd: {{realm: test, path: {path}}}}}
"""


@contextlib.contextmanager
def docker_registry(folder: Path, *, login: bool = False) -> Iterator[str]:
    """Debian's docker-registry with its data in a new folder; yields its host and port.

    With `login` it asks for `USER` and `PASSWORD`.  Skips the test where it is not installed.
    """
    binary = shutil.which("docker-registry")
    if binary is None:
        pytest.skip("docker-registry is not installed (Debian: apt install docker-registry)")
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = _CONFIG.format(root=folder / "data", port=port)
    if login:
        (folder / "htpasswd").write_text(_HTPASSWD)
        config += _AUTH.format(path=folder / "htpasswd")
    (folder / "config.yml").write_text(config)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "serve", folder / "config.yml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/v2/", process, folder / "log")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it asks for a login
        except OSError:
            ended = process.poll() is not None or time.monotonic() > give_up_s
            assert not ended, f"docker-registry did not start: {log.read_text()}"
            time.sleep(0.05)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Be silent about clients that close a connection."""


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class FakeRegistry:
    """A registry of images in memory.

    `contents` are by digest, `tags` by `NAME:TAG`, `seen` has each request as (method, path, headers).
    `before` is called with each request, and may answer it, by returning true.  With `token`, requests need
    that bearer token, which `/token` gives to the login `USER:PASSWORD`, or to all with `for_all`.
    """

    def __init__(self, *, token: str = "", for_all: bool = False) -> None:
        self.contents: dict[str, bytes] = {}
        self.tags: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.numbers = itertools.count()
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.before: Callable[[Exchange], bool] = lambda _: False
        self.realm = ""
        self.token = token
        self.for_all = for_all

    def __enter__(self) -> FakeRegistry:
        registry = self

        class Handler(Exchange):
            owner = registry

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.realm = self.realm or f"http://{self.host}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE_S)
        self._server.server_close()

    def methods(self) -> list[str]:
        """The methods of all requests so far."""
        return [method for method, _, _ in self.seen]

    def put(self, data: bytes, media_type: str, **notes: str) -> dict[str, object]:
        """Add a content, and return its descriptor."""
        self.contents[digest_of(data)] = data
        found: dict[str, object] = {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
        return found | ({"annotations": notes} if notes else {})

    def image(
        self,
        name: str,
        *layers: dict[str, object],
        config: tuple[str, bytes] = ("application/vnd.oci.empty.v1+json", b"{}"),
    ) -> bytes:
        """Add an image as `NAME:TAG`, and return its manifest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.put(config[1], config[0]),
            "layers": layers,
        }
        self.tags[name] = json.dumps(manifest).encode()
        self.contents[digest_of(self.tags[name])] = self.tags[name]
        return self.tags[name]


class Exchange(BaseHTTPRequestHandler):
    """One request, and its answer."""

    protocol_version = "HTTP/1.1"
    owner: FakeRegistry

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> bool:
        """Send an answer; `_` in the names of headers is `-`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def _serve(self) -> None:
        owner = self.owner
        self.body = b""
        owner.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if owner.before(self):
            return
        self.read_body()
        parts = urlsplit(self.path)
        if parts.path == "/token":
            self._token()
        elif owner.token and self.headers["Authorization"] != f"Bearer {owner.token}":
            challenge = f'Bearer realm="{owner.realm}",service="fake",scope="repository:x:pull,push"'
            self.answer(401, b"{}", WWW_Authenticate=challenge)
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\w*)", parts.path):
            self._upload(match[1], match[2], parse_qs(parts.query))
        elif match := re.fullmatch(r"/v2/(.+)/(blobs|manifests)/(.+)", parts.path.replace("%3A", ":")):
            self._content(*match.groups())
        elif match := re.fullmatch(r"/v2/(.+)/tags/list", parts.path):
            tags = [tag.rpartition(":")[2] for tag in owner.tags if tag.startswith(f"{match[1]}:")]
            self.answer(200, json.dumps({"name": match[1], "tags": tags}).encode())
        else:
            self.answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815

    def read_body(self, size: int | None = None) -> bytes:
        """Read the body of the request, or its first bytes."""
        length = int(self.headers.get("Content-Length") or 0)
        self.body += self.rfile.read((length if size is None else size) - len(self.body))
        return self.body

    def _token(self) -> None:
        import base64

        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.owner.for_all or self.headers["Authorization"] == basic:
            self.answer(200, json.dumps({"token": self.owner.token, "expires_in": 60}).encode())
        else:
            self.answer(401, b"{}")

    def _content(self, name: str, what: str, reference: str) -> None:
        owner = self.owner
        if self.command == "PUT":
            owner.tags[f"{name}:{reference}"] = self.body
            owner.contents[digest_of(self.body)] = self.body
            self.answer(201, Docker_Content_Digest=digest_of(self.body))
            return
        data = owner.contents.get(reference)
        if data is None and what == "manifests":
            data = owner.tags.get(f"{name}:{reference}")
        ranged = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if data is None:
            self.answer(404, b'{"errors":[{"code":"UNKNOWN","message":"not here"}]}')
        elif ranged:
            first = int(ranged[1])
            self.answer(206, data[first:], Content_Range=f"bytes {first}-{len(data) - 1}/{len(data)}")
        else:
            self.answer(200, data)

    def _upload(self, name: str, upload: str, query: dict[str, list[str]]) -> None:
        owner = self.owner
        if self.command == "POST":
            if "mount" in query and query["mount"][0] in owner.contents:
                self.answer(201, Location="/x")
                return
            upload = f"u{next(owner.numbers)}"
            owner.uploads[upload] = bytearray()
            self.answer(202, Location=f"/v2/{name}/blobs/uploads/{upload}?state=a%2Fb")
            return
        if upload not in owner.uploads:
            self.answer(404)
            return
        whole = owner.uploads[upload]
        whole += self.body
        headers = {"Location": self.path.partition("&digest")[0], "Range": f"0-{max(0, len(whole) - 1)}"}
        if self.command == "GET":
            self.answer(204, **headers)
        elif self.command == "PATCH":
            self.answer(202, **headers)
        elif digest_of(bytes(whole)) != query["digest"][0]:
            self.answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"wrong digest"}]}')
        else:
            owner.contents[digest_of(bytes(whole))] = bytes(whole)
            self.answer(201)
