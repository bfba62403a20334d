"""The application: the routes, the responses to errors, and the OpenAPI document."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, Router
from litestar.di import Provide
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from yarnstore._version import __version__
from yarnstore.errors import YarnstoreError
from yarnstore.progress import CANCEL
from yarnstore.web import problems
from yarnstore.web.document import complete
from yarnstore.web.faces.front import Face, Front
from yarnstore.web.guard import CutShortError, Guard, TooLargeError
from yarnstore.web.metrics import Metrics
from yarnstore.web.records import ProblemDetails
from yarnstore.web.responses import JsonResponse
from yarnstore.web.routes import catalogue, commands, jobs, models, pages, settings, storage
from yarnstore.web.service import Service
from yarnstore.web.work import API


class Document(JsonRenderPlugin):
    """The OpenAPI document, including properties of results, which are in the JSON too."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """See Litestar."""
        return msgspec.json.encode(complete(openapi_schema))


ROUTERS = [
    commands.router, models.router, jobs.router, catalogue.router, storage.router, settings.router,
]  # fmt: skip


_WITH_BODY = ("POST", "PUT", "PATCH")


def make_app(service: Service) -> Litestar:
    """Return the application without its guard."""

    metrics = Metrics(service)

    async def provide() -> Service:
        return service

    async def provide_metrics() -> Metrics:
        return metrics

    async def prepare(request: Request[Any, Any, Any]) -> None:
        CANCEL.set(service.ending)  # in the context of the request, which its thread gets a copy of
        if request.method in _WITH_BODY and not await request.body():
            request._body = b"{}"  # noqa: SLF001 - as if an object without fields had been sent

    return Litestar(
        [
            Router(API, route_handlers=ROUTERS),
            pages.health, pages.get_metrics, pages.index, pages.static, pages.login_page, pages.log_in,
            pages.make_login_link,
        ],
        dependencies={"service": Provide(provide), "metrics": Provide(provide_metrics)},
        before_request=prepare,
        exception_handlers={Exception: _answer},
        response_class=JsonResponse,
        on_startup=[service.start],
        on_shutdown=[service.stop],
        openapi_config=OpenAPIConfig(
            title="ystore",
            version=__version__,
            path=f"{API}/openapi.json",
            use_handler_docstrings=True,
            render_plugins=[Document(path="/")],
            security=[{"token": []}],
            components=Components(
                security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}
            ),
        ),
        logging_config=None,
        debug=False,
    )  # fmt: skip


def guarded(
    app: Litestar,
    service: Service,
    hosts: Sequence[str],
    *,
    scheme: str = "http",
    proxied: Sequence[str] = (),
    faces: Sequence[Face] = (),
) -> Guard:
    """Return the application behind its guard; `hosts` are the accepted values of `Host`, see `Guard`."""
    front = Front(app, faces)
    return Guard(
        front,
        service.access,
        frozenset(host.lower() for host in hosts),
        scheme=scheme,
        proxied=frozenset(host.lower() for host in proxied),
        public=pages.public_paths(),
        read_only=service.read_only,
        is_face=lambda scope: front.face_of(scope) is not None,
    )


def _answer(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    fault = _problem(request, error)
    headers = dict(getattr(error, "headers", None) or {})
    return JsonResponse(fault, status_code=fault.status, media_type=problems.MEDIA_TYPE, headers=headers)


def _problem(request: Request[Any, Any, Any], error: Exception) -> ProblemDetails:
    if isinstance(error, YarnstoreError):
        return problems.describe(error)
    if isinstance(error, TooLargeError):
        return problems.too_large()
    if isinstance(error, CutShortError):
        return problems.problem(400, "bad-request", "the connection was closed before the whole body arrived")
    if isinstance(error, RecursionError):
        return problems.problem(400, "bad-request", "the JSON is nested too deeply")
    if isinstance(error, ValidationException):
        return problems.problem(400, "bad-request", _reasons(error))
    if isinstance(error, NotFoundException):
        return problems.problem(404, "no-such-path", f"this service has no path {request.url.path[:200]}")
    if isinstance(error, MethodNotAllowedException):
        return problems.problem(
            405, "bad-method", f"{request.url.path[:200]} has no method {request.method[:20]}"
        )
    if isinstance(error, HTTPException) and error.status_code < 500:
        code = {429: "too-many-requests"}.get(error.status_code, "bad-request")
        return problems.problem(error.status_code, code, error.detail or "the request is invalid")
    traceback.print_exception(error, file=sys.stderr)
    return problems.internal()


def _reasons(error: ValidationException) -> str:
    found = error.extra if isinstance(error.extra, list) else []
    reasons = [
        f"{item.get('key', '')}: {item.get('message', '')}".removeprefix(": ").removeprefix("data: ")
        for item in found
        if isinstance(item, dict)
    ]
    return "; ".join(reasons) or error.detail
