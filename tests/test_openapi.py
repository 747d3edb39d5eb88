from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.test import Client

RESPONSE = "/api/trials/{trial_id}/responses/{response_id}"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema, made and validated without a warning."""
    out = StringIO()
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=out)
    return dict(yaml.safe_load(out.getvalue()))


def test_every_address_of_the_api_is_described(schema: dict[str, Any]) -> None:
    assert set(schema["paths"]) == {
        RESPONSE,
        "/api/trials/{trial_id}/skip",
        "/api/session",
        "/api/session/step",
        "/api/studies/{slug}",
        "/api/studies/{slug}/dashboard",
        "/api/studies/{slug}/sessions",
        "/api/releases",
        "/api/releases/{study}/{version}",
        "/api/releases/{study}/{version}/differences",
        "/api/releases/{study}/{version}/files/{name}",
    }


def test_an_answer_is_described_with_every_error(schema: dict[str, Any]) -> None:
    put = schema["paths"][RESPONSE]["put"]

    assert set(put["responses"]) >= {"200", "201", "400", "401", "404", "409", "422"}
    for status, response in put["responses"].items():
        (kind,) = response["content"].values()
        wanted = "ResponseOut" if status in {"200", "201"} else "ErrorOut"
        assert kind["schema"] == {"$ref": f"#/components/schemas/{wanted}"}
    assert put["security"] == [{"sessionLink": []}]


def test_the_form_of_an_error_is_described(schema: dict[str, Any]) -> None:
    error = schema["components"]["schemas"]["ErrorOut"]

    assert set(error["required"]) == set(error["properties"]) == {"code", "message", "fields"}
    assert error["properties"]["fields"]["additionalProperties"] == {"type": "string"}


def test_the_form_of_an_answer_is_described_with_its_limits(schema: dict[str, Any]) -> None:
    answer = schema["components"]["schemas"]["ResponseInRequest"]["properties"]
    named = schema["components"]["schemas"]["NamedInRequest"]["properties"]

    assert answer["named"]["maxItems"] == answer["impossible"]["maxItems"] == 1000
    assert answer["duration_ms"]["maximum"] == 24 * 60 * 60 * 1000
    assert (named["percentage"]["minimum"], named["percentage"]["maximum"]) == (0, 100)


@pytest.mark.django_db
def test_the_site_serves_its_schema_to_anybody(schema: dict[str, Any]) -> None:
    response = Client().get("/api/schema")

    assert response.status_code == 200
    assert yaml.safe_load(response.content) == schema
