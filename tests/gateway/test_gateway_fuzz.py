"""Requests made from the API's own description, fitting and not, against a gateway on a socket."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from gateways import ADMIN, Served, able_pool, gateway
from pools import serving
from r2reasoner.gateway import api, openapi
from r2reasoner.gateway.routing import ROUTER
from r2reasoner.mock import MockProvider

FAST = 75
SLOW = 1000
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CHECKS: list[CheckFunction] = [
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
MODELS = ("medium", "large", ROUTER, f"{ROUTER}:0.5")
TRACE = "the-one-there-is"
UNTOLD = frozenset({"input", "reasoning", "text", "tool_choice", "tools"})
"""Fields of /v1/responses whose inside the description leaves to OpenAI's."""


def described() -> dict[str, Any]:
    """Return the description, with the models, the pool and the trace that there are.

    Messages have no fields of others, which takes two thirds off the time to make requests.
    """
    described = openapi.describe()
    schemas, paths = described["components"]["schemas"], described["paths"]
    for name in ("ChatRequest", "ResponseRequest"):
        schemas[name]["properties"]["model"] = {"enum": list(MODELS)}
    schemas["Wish"]["properties"]["pool"] = {"enum": ["mock", None]}
    schemas["Message"]["additionalProperties"] = False
    for path, known in {
        "/v1/models/{name}": MODELS[:3],
        "/v1/traces/{trace_id}": [TRACE],
        "/v1/traces/{trace_id}/events": [TRACE],
    }.items():
        parameter = paths[path]["parameters"][0]
        parameter["schema"] = {"anyOf": [{"enum": list(known)}, parameter["schema"]]}
    return described


SCHEMA = schemathesis.openapi.from_dict(described())
OPERATIONS = {
    found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)
}
RUNS = [
    *((label, POSITIVE) for label in OPERATIONS),
    *((label, NEGATIVE) for label, operation in OPERATIONS.items() if operation.body),
]


@pytest.fixture(scope="module")
def mock() -> MockProvider:
    return MockProvider()


@pytest.fixture(scope="module")
def served(mock: MockProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose larger models can do everything, so that what fits is answered."""
    with serving(mock) as base_url:
        pool = able_pool(base_url)
        workers = tuple(
            replace(card, capabilities=card.capabilities | {"logit_bias"})
            if card.capabilities
            else card
            for card in pool.workers
        )
        db = tmp_path_factory.mktemp("fuzz") / "l.db"
        with gateway(replace(pool, workers=workers), db) as opened:
            yield opened


@pytest.fixture(scope="module")
def trace_id(served: Served) -> str:
    body: Any = {"model": "medium", "messages": [{"role": "user", "content": "a"}]}
    answer = requests.post(f"{served.base_url}/chat/completions", json=body, timeout=30)
    return answer.headers["x-r2-trace-id"]


def without_points(value: Any) -> Any:
    """Return what a writer of JSON writes: whole numbers have no point."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: without_points(inner) for name, inner in value.items()}
        case list():
            return [without_points(inner) for inner in value]
    return value


def send(served: Served, case: Case[Any], trace_id: str) -> Response:
    if case.path_parameters.get("trace_id") == TRACE:
        case.path_parameters["trace_id"] = trace_id
    if case.operation.body:
        case.body = without_points(case.body)
    with requests.Session() as session:
        session.headers["authorization"] = f"Bearer {ADMIN}"
        return case.call(base_url=served.root, session=session)


def errors_of(response: Response) -> list[dict[str, Any]]:
    """Return the errors that a response tells, those within a stream too."""
    if response.status_code >= 400:
        return [response.json()["error"]]
    if "event-stream" not in response.headers["content-type"][0]:
        return []
    data = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    events = [json.loads(line) for line in data]
    return [e["error"] for e in events if e.get("error")] + [
        e["response"]["error"] for e in events if e.get("type") == "response.failed"
    ]


def is_explained(case: Case[Any], error: dict[str, Any], status: int) -> bool:
    """Tell whether an error is one that a body may get although it fits."""
    body: Any = case.body
    wish = (body.get("r2") or {}) if isinstance(body, dict) else {}
    match error["code"]:
        case "budget_exceeded":
            return status in (200, 402) and wish.get("max_cost") is not None
        case "deadline_exceeded":
            return status in (200, 504) and wish.get("deadline_s") is not None
        case "bad_request":
            return status in (200, 400) and "the query is empty" in error["message"]
        case "model_not_found" | "trace_not_found" | None if status == 404:
            return not case.operation.body
    param = (error["param"] or "").partition("[")[0].partition(".")[0]
    return status == 400 and "/v1/responses" in case.path and param in UNTOLD


def fuzz(
    served: Served, mock: MockProvider, trace_id: str, label: str, mode: GenerationMode, most: int
) -> None:
    """Send requests, and hold each answer to the description.

    Without a body nothing can be made that does not fit, and so twice as much that does.
    """
    operation = OPERATIONS[label]

    @given(case=operation.as_strategy(mode))
    @settings(
        max_examples=most if operation.body else 2 * most,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Case[Any]) -> None:
        before = len(mock.books)
        response = send(served, case, trace_id)
        case.validate_response(response, checks=CHECKS)
        status, errors = response.status_code, errors_of(response)
        if mode is POSITIVE:
            assert all(is_explained(case, error, status) for error in errors), errors
        else:
            assert 400 <= status < 500, status
        if 400 <= status < 500 and status != 402:
            assert len(mock.books) == before, "something was dispatched"

    check()


@pytest.mark.parametrize(("label", "mode"), RUNS)
def test_what_fits_is_answered_and_what_does_not_is_refused(
    served: Served, mock: MockProvider, trace_id: str, label: str, mode: GenerationMode
) -> None:
    fuzz(served, mock, trace_id, label, mode, FAST)


@pytest.mark.slow
@pytest.mark.parametrize(("label", "mode"), RUNS)
def test_two_thousand_of_each_route(
    served: Served, mock: MockProvider, trace_id: str, label: str, mode: GenerationMode
) -> None:
    fuzz(served, mock, trace_id, label, mode, SLOW)


def test_every_route_is_described_and_only_those(served: Served) -> None:
    routes = {
        (route.path.replace(":path", ""), method.lower())
        for route in api.routes(served.gateway)
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    paths = openapi.describe()["paths"]
    assert routes == {
        (path, method) for path in paths for method in {"get", "post"} & paths[path].keys()
    }


def test_the_description_is_one() -> None:
    schemathesis.openapi.from_dict(openapi.describe()).validate()
