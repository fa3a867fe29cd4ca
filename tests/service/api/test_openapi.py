"""The OpenAPI document: schemathesis finds no 5xx, and each route is documented with examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from asking import BASE
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from triage.service.app import create_app
from triage.settings import Settings

EXAMPLES = 4  # a route
JSON = "application/json"
REQUEST = ("method", "url", "headers", "params", "json", "files")
WAITING = "/api/v1/events"  # a stream without end is read in test_events.py
DOCUMENT = create_app(Settings(home=Path("unused"))).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [found.ok() for found in SCHEMA.exclude(path=WAITING).get_all_operations()]


@schemathesis.serializer('multipart/related; type="application/dicom"')
def _as_it_is(_context: Any, value: Any) -> bytes:
    return str(value).encode("utf-8", "replace")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_no_request_makes_a_server_error(
    client: TestClient, operation: Any, data: st.DataObject
) -> None:
    mode = data.draw(st.sampled_from(list(schemathesis.GenerationMode)))
    case = data.draw(operation.as_strategy(generation_mode=mode))
    request = case.as_transport_kwargs(base_url=BASE)
    body = request.pop("data", None)
    known = {k: v for k, v in request.items() if k in REQUEST}
    try:
        answer = client.request(**known, content=body if isinstance(body, bytes | str) else None)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        assume(False)  # no client could send it
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert set(answer.json()) == {"error"}


def test_every_route_has_an_example_and_the_one_error_shape(client: TestClient) -> None:
    document = client.get("/api/v1/openapi.json").json()
    models = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            where = f"{method} {path}"
            assert route["description"] or route["summary"], where
            for code, answer in route["responses"].items():
                content = answer.get("content", {})
                if JSON not in content:
                    continue
                name = content[JSON]["schema"].get("$ref", "").rsplit("/", 1)[-1]
                if int(code) >= 400 and path != "/readyz":
                    assert name == "ErrorBody", where
                assert "example" in models[name] or _made_of_examples(models, name), where


def _made_of_examples(models: Any, name: str) -> bool:
    """Lists hold models that have an example each."""
    text = str(models[name])
    return any(f"/{other}'" in text and "example" in models[other] for other in models)
