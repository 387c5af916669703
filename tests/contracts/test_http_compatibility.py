"""Which changes of an HTTP API break the programs that call it, and that none was made since the last commit, main or
release."""

import json
from copy import deepcopy
from typing import Any

import pytest

from lostwax.schemas import folder
from lostwax.schemas.http_compatibility import broken_operations

A, B = {"type": "string"}, {"type": "integer"}
Change = dict[str, Any]


def struct(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split()}


def sent(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def api(**changes: Any) -> dict[str, Any]:
    """A document of one operation, with other `parameters`, `body`, `answer`, `answers` or `security`."""
    operation = {
        "security": changes.get("security", [{"api-key": ["orders:write"]}]),
        "parameters": changes.get("parameters", [{"in": "query", "name": "limit", "schema": {**B, "maximum": 200}}]),
        "responses": {
            "202": sent({"$ref": "#/components/schemas/Accepted"}),
            "409": {},
            **changes.get("answers", {}),
        },
    }
    body = changes.get("body", {**struct("model", model=A, size=B), "additionalProperties": False})
    if body is not None:
        operation["requestBody"] = {**sent(body), "required": True}
    accepted = changes.get("answer", struct("code", code=A, status={"enum": ["SUBMITTED"]}))
    return {"paths": {"/v1/orders": {"post": operation}}, "components": {"schemas": {"Accepted": accepted}}}


def body(required: str = "model", **properties: Any) -> Change:
    return {"body": {**struct(required, **{"model": A, **properties}), "additionalProperties": False}}


def limit(**changes: Any) -> Change:
    return {"parameters": [{"in": "query", "name": "limit", "schema": {**B, "maximum": 200}, **changes}]}


HARMLESS: dict[str, Change] = {
    "nothing": {},
    "an optional field of the request more": body(size=B, note=A),
    "a field of the request that need not be sent any more": body("", size=B),
    "the same with a default": body("", size=B, model={**A, "default": "ring"}),
    "more allowed in the request": limit(schema={**B, "maximum": 500}),
    "a field of the answer more": {"answer": struct("code", code=A, status={"enum": ["SUBMITTED"]}, at=A)},
    "a field of the answer that is always there now": {
        "answer": struct("code status", code=A, status={"enum": ["SUBMITTED"]})
    },
    "an optional parameter more": {
        "parameters": [*limit()["parameters"], {"in": "query", "name": "after", "schema": A}],
    },
    "an error more": {"answers": {"410": {}}},
}

BREAKING: dict[str, tuple[Change, str]] = {
    "a field of the request that must be sent now": (body("model size", size=B), "body.size: required"),
    "a field of the request that is refused now": (body(), "body.size: removed, but old messages have it"),
    "a field of the request of another type": (body(size=A), "body.size: the type was"),
    "another default for what need not be sent": (
        body(size={**B, "default": 1}),
        "body.size: default was not given and is 1",
    ),
    "less allowed in the request": (limit(schema={**B, "maximum": 100}), "query limit: maximum was 200 and is 100"),
    "no request where one was": ({"parameters": []}, "query limit: gone"),
    "a parameter that must be sent now": (limit(required=True), "query limit: required"),
    "a field of the answer less": ({"answer": struct("", status={"enum": ["SUBMITTED"]})}, "202.code: removed"),
    "a field of the answer that may be missing now": (
        {"answer": struct("", code=A, status={"enum": ["SUBMITTED"]})},
        "202.code: not required any more",
    ),
    "a value in the answer that nobody knows": (
        {"answer": struct("code", code=A, status={"enum": ["SUBMITTED", "NEW"]})},
        "202.status: 'NEW' is new",
    ),
    "another answer beside it": ({"answers": {"200": sent(A)}}, "200: a new answer"),
    "an answer without its body": ({"answers": {"202": {}}}, "202: has no JSON body any more"),
    "another scope": ({"security": [{"api-key": ["orders:all"]}]}, "lets in [{'api-key': ['orders:all']}]"),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_harmless(change: Change) -> None:
    assert broken_operations(api(), api(**change), {}) == []


@pytest.mark.parametrize(("change", "said"), BREAKING.values(), ids=BREAKING)
def test_breaking(change: Change, said: str) -> None:
    (broken,) = broken_operations(api(), api(**change), {})
    assert broken.startswith("POST /v1/orders: ")
    assert said in broken


def test_a_body_where_none_was_sent_breaks() -> None:
    assert broken_operations(api(body=None), api(), {}) == ["POST /v1/orders: body: required, but programs send none"]


def test_an_operation_that_is_gone_breaks_until_it_is_retired() -> None:
    gone = {"paths": {}, "components": {}}
    assert broken_operations(api(), gone, {}) == ["POST /v1/orders: gone, but programs call it"]
    assert broken_operations(api(), gone, {"POST /v1/orders": "nobody calls it since 2027"}) == []


def test_nothing_has_been_broken_since_the_last_commit_main_or_release() -> None:
    today = folder.documents()
    for base in folder.bases():
        assert folder.calls_broken_since(base, today) == [], "programs call it: offer the new beside the old"


def test_real_documents_are_compared_and_a_break_in_them_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    today = folder.documents()
    monkeypatch.setattr(folder, "committed", lambda base, under, project: dict(today))
    assert folder.calls_broken_since("HEAD", today) == []
    path = "openapi/partner_api.json"
    broken = deepcopy(json.loads(today[path]))
    broken["components"]["schemas"]["SubmitOrder"]["required"].append("reference")
    del broken["components"]["schemas"]["Accepted"]["properties"]["code"]
    assert folder.calls_broken_since("HEAD", {**today, path: folder.text_of(broken)}) == [
        "partner_api: POST /v1/orders: body.reference: required, but old messages may lack it",
        "partner_api: POST /v1/orders: 202.code: removed, but old readers may read it",
    ]
    assert all(reason.strip() for retired in folder.RETIRED_OPERATIONS.values() for reason in retired.values())
