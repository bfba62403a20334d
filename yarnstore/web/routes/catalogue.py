"""Routes of the registries' models, and of the content of versions."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from yarnstore.errors import NotFoundError
from yarnstore.results import InspectResult, Offer, Readme, VersionDetails
from yarnstore.web import requests
from yarnstore.web.records import Job
from yarnstore.web.routes.names import Segment, Variant, Version, exact_spec_in, model_in, spec_in
from yarnstore.web.service import Service


@get("/catalogue", sync_to_thread=True, summary="List the models in the registries")
def list_catalogue(
    service: NamedDependency[Service],
    q: Annotated[str, QueryParameter(description="Search words.", max_length=200)] = "",
    limit: Annotated[int, QueryParameter(description="Maximum number of results.", ge=1, le=1000)] = 100,
    offset: Annotated[int, QueryParameter(description="Number of results to skip.", ge=0, le=1_000_000)] = 0,
) -> list[Offer]:
    """Like `ystore search --json`, in pages."""
    return service.store.search(q)[offset : offset + limit]


@get("/catalogue/{model:str}", sync_to_thread=True, summary="Show a version of a model")
def get_offered(
    service: NamedDependency[Service], model: Segment, version: Version = None, variant: Variant = None
) -> VersionDetails:
    """Like `ystore show --json`; the default version is `latest`."""
    return service.store.show(spec_in(model, version, variant))


@get(
    "/catalogue/{model:str}/contents",
    sync_to_thread=True,
    summary="List the files and tensors of a stored version",
)
def get_contents(
    service: NamedDependency[Service], model: Segment, version: Version = None, variant: Variant = None
) -> InspectResult:
    """Like `ystore inspect --json`; 404 if the version is not stored."""
    return service.store.inspect(_stored(service, model, version, variant))


@get("/catalogue/{model:str}/readme", sync_to_thread=True, summary="Get the README of a stored version")
def get_readme(
    service: NamedDependency[Service], model: Segment, version: Version = None, variant: Variant = None
) -> Readme:
    """The README of a version; 404 if the version is not stored or has none."""
    return service.store.readme(_stored(service, model, version, variant))


@post("/diff", sync_to_thread=True, status_code=202, summary="Compare two versions")
def diff(service: NamedDependency[Service], data: JSONBody[requests.DiffRequest]) -> Job:
    """Compare two versions by file and tensor; the result of the job is a DiffResult."""
    old, new = requests.version_spec(data.old), requests.version_spec(data.new, data.old)
    return service.jobs.add("diff", {"old": old, "new": new})


def _stored(service: NamedDependency[Service], model: str, version: str | None, variant: str | None) -> str:
    """Return the spec of a stored version, by default the installed one.  Raises: NotFoundError."""
    name = model_in(model)
    wanted = exact_spec_in(model, version, variant) if version else spec_in(model, None, variant)
    for row in service.store.list_versions(name):
        fits = row.installed if version is None else wanted.endswith(f"@{row.version}")
        if fits and variant in (None, row.variant):
            return f"{row.model}:{row.variant}@{row.version}"
    raise NotFoundError(
        "stored version", wanted, hint=f"download it first: POST /api/v1/models/{model}/fetch"
    )


router = Router(
    "/", route_handlers=[list_catalogue, get_offered, get_contents, get_readme, diff], tags=["catalogue"]
)
