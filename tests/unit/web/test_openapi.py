"""The OpenAPI document is true: requests made from it have the answers that it describes, and no 5xx."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.services import PATIENCE_S, Running, needs_web, serving
from tests.support.stores import MODEL

if importlib.util.find_spec("schemathesis") is None:
    pytest.skip("needs schemathesis: pip install 'yarnstore[test-web]'", allow_module_level=True)

import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
pytestmark = [needs_web, *([pytest.mark.deep] if DEEP else [])]
CASES = 5000 if DEEP else 100


@pytest.fixture(scope="module")
def document(service: Running) -> dict[str, Any]:
    found: dict[str, Any] = service.get("/openapi.json").json()
    return found


@pytest.fixture
def fuzzed(home: Path) -> Iterator[Running]:
    """A service that has no network: a made-up registry is asked for nothing."""
    with serving(home, "--offline") as running:
        yield running


def call(service: Running, case: schemathesis.Case) -> schemathesis.Response:
    """Send a case, again if too many were sent."""
    while True:
        answer = case.call(
            base_url=service.url,
            headers={"Authorization": f"Bearer {service.ready['token']}"},
            timeout=PATIENCE_S,
        )
        if answer.status_code != 429:
            return answer
        time.sleep(0.2)


def test_requests_from_the_document_have_the_answers_that_it_describes(
    fuzzed: Running, document: dict[str, Any]
) -> None:
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    operations = [each for each in operations if not each.path.endswith("/events")]
    assert len(operations) > 45
    count = 0
    seen: dict[int, int] = {}

    for operation in operations:

        @given(case=operation.as_strategy(), known=st.booleans())
        @settings(
            max_examples=max(1, -(-CASES // len(operations))),
            phases=[Phase.explicit, Phase.generate],
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        def ask(case: schemathesis.Case, known: bool) -> None:
            nonlocal count
            if known and "model" in (case.path_parameters or {}):
                case.path_parameters["model"] = MODEL
            answer = call(fuzzed, case)
            count += 1
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            case.validate_response(answer, checks=CHECKS)

        ask()
    assert count >= CASES
    assert seen.keys() & {200, 202}, seen
    assert fuzzed.get("/status").status_code == 200


def test_every_route_of_the_api_is_described(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["description"].endswith("."), (method, path)
            assert operation["responses"]["default"], (method, path)


def test_results_have_their_properties(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["StoreStatus"]["properties"]["dedupe_ratio"] == {"type": "number"}
    assert schemas["Update"]["properties"]["available"] == {"type": "boolean"}
