"""HTTP bodies have every field of the Python results, by the same name and type."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints

import pytest
from pydantic import ValidationError

from xclip_runtime.results import Classification, VideoScores
from xclip_runtime.search import SearchResult
from xclip_runtime.serve.api import schemas

ADDED = {
    "ClassifyResponse": {"token", "thumbnails"},
    "ScoreResponse": {"token", "thumbnails"},
    "SearchResponse": set(),
    "HitResponse": {"media", "thumbnails"},
    "RequestTimings": {"upload", "queue"},
}
PAIRS = [
    (schemas.ClassifyResponse, Classification),
    (schemas.ScoreResponse, VideoScores),
    (schemas.SearchResponse, SearchResult),
]


def dataclasses_in(kind, context):
    """Dataclasses that a dataclass holds, by field."""
    hints = get_type_hints(kind, localns=context)
    return {
        name: next((one for one in (hint, *get_args(hint)) if is_dataclass(one)), None) for name, hint in hints.items()
    }


def check(http, python):
    added = ADDED.get(http.__name__, set())
    assert {field.name for field in fields(http)} == {field.name for field in fields(python)} | added
    inner = dataclasses_in(http, vars(schemas))
    for name, kind in dataclasses_in(python, vars(schemas)).items():
        if kind is None:
            assert inner[name] is None
        else:
            check(inner[name], kind)


@pytest.mark.parametrize(("http", "python"), PAIRS)
def test_every_field_of_a_python_result_is_in_its_http_body(http, python):
    check(http, python)


@pytest.mark.parametrize(("http", "python"), PAIRS[:2])
def test_the_openapi_document_lists_them(server, http, python):
    documented = server.client.get("/openapi.json").json()["components"]["schemas"]

    assert set(documented[http.__name__]["properties"]) == {field.name for field in fields(http)}


@pytest.mark.parametrize("name", ["Classify", "Score", "Embed", "Search", "Live"])
@pytest.mark.parametrize(
    "values", [{"texts": [1] * 1000}, {"labels": [None] * 1000}, {f"x{number}": 1 for number in range(1000)}]
)
def test_a_request_has_few_errors_however_much_is_wrong_with_it(name, values):
    options = getattr(schemas, f"{name}Options")
    with pytest.raises(ValidationError) as by_value:
        options.model_validate(values)
    with pytest.raises(ValidationError) as as_json:
        options.model_validate_json(json.dumps(values))

    assert by_value.value.error_count() + as_json.value.error_count() <= 4
