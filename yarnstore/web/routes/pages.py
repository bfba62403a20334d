"""Routes outside of the API: health, the login, the dashboard's files."""

from __future__ import annotations

import hashlib
import mimetypes
import re
import time
from functools import cache
from importlib import resources
from typing import Annotated, Any, TypeAlias

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from yarnstore.errors import NotFoundError
from yarnstore.web import problems
from yarnstore.web.access import LOGIN_S, SESSION_S
from yarnstore.web.guard import HEALTH, LOGIN
from yarnstore.web.metrics import Metrics
from yarnstore.web.records import LoginLink
from yarnstore.web.requests import LoginRequest
from yarnstore.web.service import Service
from yarnstore.web.work import API

AnyRequest: TypeAlias = Request[Any, Any, Any]

_STATIC = "/static/"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
# For a login link opened from another page: with SameSite=Strict the cookie is not sent after a redirect, but
# with later requests of this page.
_NEXT = (
    b'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><title>ystore</title>'
)


class StaticFile(msgspec.Struct, frozen=True):
    """One file of the dashboard."""

    data: bytes
    media_type: str
    tag: str


@cache
def static_file(path: str) -> StaticFile:
    """A file of `yarnstore/web/static`.  Raises: NotFoundError."""
    parts = path.split("/")
    place = resources.files("yarnstore.web").joinpath("static")
    for part in parts:
        if not _NAME.fullmatch(part):
            raise NotFoundError("file", path[:80])
        place = place.joinpath(part)
    if not place.is_file():
        raise NotFoundError("file", path[:80])
    data = place.read_bytes()
    suffix = "." + parts[-1].rpartition(".")[2]
    kind = _TYPES.get(suffix) or mimetypes.guess_type(parts[-1])[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") or kind == "image/svg+xml" else ""
    return StaticFile(data, kind + charset, f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"')


def public_paths() -> frozenset[str]:
    """The paths that need no token: the login page, the files that it names, and `/health`."""
    page = static_file("login.html").data.decode()
    named = re.findall(rf'(?:href|src)="({_STATIC}[^"]+)"', page)
    return frozenset({LOGIN, HEALTH, *named})


def _serve(path: str, request: AnyRequest, status: int = 200) -> Response[bytes]:
    file = static_file(path)
    headers = {"etag": file.tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match", "").removeprefix("W/") == file.tag:  # weak behind some proxies
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    return Response(file.data, status_code=status, headers=headers, media_type=file.media_type)


@get(HEALTH, include_in_schema=False)
async def health() -> dict[str, str]:
    """Whether the service answers."""
    return {"status": "ok"}


@get("/metrics", include_in_schema=False, sync_to_thread=True)
def get_metrics(metrics: NamedDependency[Metrics]) -> Response[bytes]:
    """The metrics for Prometheus."""
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@get("/", include_in_schema=False)
async def index(request: AnyRequest) -> Response[bytes]:
    """The dashboard."""
    return _serve("index.html", request)


@get("/static/{path:path}", include_in_schema=False)
async def static(request: AnyRequest, path: FromPath[str]) -> Response[bytes]:
    """A file of the dashboard."""
    return _serve(str(path).lstrip("/"), request)


@get(LOGIN, include_in_schema=False)
async def login_page(
    service: NamedDependency[Service],
    request: AnyRequest,
    token: Annotated[str | None, QueryParameter(max_length=200)] = None,
) -> Response[bytes]:
    """Log a browser in by the link of `ystore serve`; without a token, the page that asks for one."""
    if token is None:
        return _serve("login.html", request)
    session = service.access.log_in(token)
    if session is None:
        return _serve("login.html", request, status=401)
    cookies = [_cookie(service, session)]
    if request.headers.get("sec-fetch-site") in (None, "none", "same-origin"):
        return Response(
            b"", status_code=303, headers={"location": "/"}, cookies=cookies, media_type="text/html"
        )
    return Response(_NEXT, cookies=cookies, media_type="text/html; charset=utf-8")


@post(LOGIN, include_in_schema=False, status_code=200)
async def log_in(
    service: NamedDependency[Service], data: JSONBody[LoginRequest]
) -> Response[dict[str, object]]:
    """Log a browser in by a token of one login, or by the service's own."""
    session = service.access.log_in(data.token)
    if session is None:
        fault = problems.problem(401, "unauthorized", "this login link is invalid or was used", hint=(
            "start `ystore serve` again, or request another link: POST /api/v1/login-links"))  # fmt: skip
        return Response(msgspec.to_builtins(fault), status_code=401, media_type=problems.MEDIA_TYPE)
    return Response({"logged_in": True}, cookies=[_cookie(service, session)])


def _cookie(service: NamedDependency[Service], session: str) -> Cookie:
    return Cookie(
        key=service.access.cookie,
        value=session,
        httponly=True,
        samesite="strict",
        secure=service.secure,
        path="/",
        max_age=int(SESSION_S),
    )


@post(f"{API}/login-links", tags=["login"], summary="Create a login link")
async def make_login_link(service: NamedDependency[Service]) -> LoginLink:
    """Create a login address that works once, in one browser."""
    token = service.access.new_login()
    return LoginLink(f"{LOGIN}?token={token}", int((time.time() + LOGIN_S) * 1000))
