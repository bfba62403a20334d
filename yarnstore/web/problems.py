"""Errors as RFC 9457 problem documents, in one table."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from yarnstore import errors
from yarnstore.core.jsonable import jsonable
from yarnstore.web.records import ProblemDetails

MEDIA_TYPE = "application/problem+json"

# The first class that an error is an instance of counts.  A registry that fails is no failure of this
# service: 424.
STATUSES: tuple[tuple[type[errors.YarnstoreError], int], ...] = (
    (errors.UsageError, 400),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.CancelledError, 409),
    (errors.IntegrityError, 422),
    (errors.IncompatibleError, 422),
    (errors.SelfCheckError, 422),
    (errors.LockTimeoutError, 423),
    (errors.BackendError, 424),
    (errors.ReadOnlyError, 403),
    (errors.StorageError, 507),
)


def status_of(error: errors.YarnstoreError) -> int:
    """Return the HTTP status for an error."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def describe(error: errors.YarnstoreError) -> ProblemDetails:
    """Return an error of this package as a problem document."""
    status = status_of(error)
    fields: dict[str, Any] = jsonable(error.fields)
    return ProblemDetails(
        type=f"errors.md#{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        fields=fields,
    )


def problem(status: int, code: str, detail: str, *, hint: str = "", **fields: object) -> ProblemDetails:
    """Return a problem of the service itself."""
    return ProblemDetails(
        type=f"http-api.md#{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        hint=hint,
        fields=dict(fields),
    )


def too_large() -> ProblemDetails:
    """Return the problem of a body above the limit."""
    return problem(413, "body-too-large", "the body is larger than 1 MiB")


def internal() -> ProblemDetails:
    """Return the problem for a defect of the service, without details."""
    return problem(
        500,
        "internal",
        "internal error; the service's log on stderr has the details",
        hint="report it with the log",
    )
