"""The partners' door, through HTTP: every way of being refused, and what an answer of 202 is worth."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from tests.builders import (
    Partner,
    a_digest,
    a_model_file,
    a_partner,
    a_quote,
    an_order,
    an_uploaded_model,
    as_record,
    order_at,
    order_body,
    put_file,
    register_model,
    service_token,
    submit,
    wait_for,
)

from lostwax import samples
from lostwax.channel.models import staging_key
from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, new_id, partition_of, short_code
from lostwax.contracts.orders import OrderChanged
from lostwax.kit.kafka import Publisher
from lostwax.kit.objects import Bucket, S3Settings
from lostwax.local.stack import Stack


@pytest.fixture(scope="module")
async def partner(stack: Stack) -> AsyncIterator[Partner]:
    async with await a_partner(stack) as client:
        yield client


@pytest.fixture(scope="module")
async def model(partner: Partner) -> str:
    """A model that is stored: uploaded, ordered once, priced."""
    digest = await an_uploaded_model(partner)
    await order_at(partner, await submit(partner, digest), "PRICE_CALCULATED")
    return digest


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that this answer is, which must say in words how to mend it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == f"/problems/{code}", body
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


async def post_order(partner: Partner, body: Any, key: str | None = None) -> httpx.Response:
    return await partner.post("/v1/orders", json=body, headers={"Idempotency-Key": key or new_id().hex})


async def rows(stack: Stack, sql: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    try:
        return await connection.fetch(sql, *values)
    finally:
        await connection.close()


# -- who are you ------------------------------------------------------------------------------------------------------

PATHS = [
    ("POST", "/v1/models", {"name": "a.stl", "size_bytes": 1, "sha256": a_digest()}),
    ("GET", f"/v1/models/{a_digest()}", None),
    ("POST", "/v1/orders", order_body(a_digest())),
    ("GET", "/v1/orders", None),
    ("GET", f"/v1/orders/{new_id()}", None),
    ("POST", f"/v1/orders/{new_id()}/accept", {"quote_id": str(new_id()), "amount": "1"}),
    ("GET", f"/v1/commands/{new_id()}", None),
    ("GET", "/v1/publishing/orders.requests", None),
    ("PUT", "/v1/publishing/orders.requests", {"paused": True}),
]


@pytest.mark.parametrize(("method", "path", "body"), PATHS, ids=[f"{m} {p[:11]}" for m, p, _ in PATHS])
async def test_nothing_is_told_or_done_without_a_good_key(
    stack: Stack, method: str, path: str, body: dict[str, Any] | None
) -> None:
    async with httpx.AsyncClient(base_url=stack.url("partner_api")) as nobody:
        for credentials in (None, "Bearer", "Bearer lwp_not-a-key", "Basic lwp_x", "Bearer ü".encode("latin-1")):
            headers: dict[str, Any] = {} if credentials is None else {"Authorization": credentials}
            response = await nobody.request(method, path, json=body, headers=headers)
            problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"


async def test_a_partners_key_is_no_service_token_nor_the_other_way_round(stack: Stack, partner: Partner) -> None:
    problem(await partner.get("/v1/publishing/orders.requests"), 401, "unauthorized")
    token = service_token(stack, "orders", "partner_api")
    response = await partner.get("/v1/orders", headers={"Authorization": f"Bearer {token}"})
    problem(response, 401, "unauthorized")


async def test_a_withdrawn_key_is_unknown(stack: Stack) -> None:
    async with await a_partner(stack) as leaving, await a_partner(stack) as staying:
        await rows(stack, "UPDATE api_keys SET withdrawn_at = now() WHERE client_id = $1", leaving.client_id)
        problem(await leaving.get("/v1/orders"), 401, "unauthorized")
        assert (await staying.get("/v1/orders")).status_code == 200


# -- bodies that do not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"colour": "red"}, "unknown-field", "colour"),
        ({"modle": "x"}, "unknown-field", "modle"),
        ({"quantity": "2"}, "wrong-type", "quantity"),
        ({"quantity": 1.5}, "wrong-type", "quantity"),
        ({"alloy": None}, "wrong-type", "alloy"),
        ({"reference": 5}, "wrong-type", "reference"),
        ({"quantity": 0}, "out-of-range", "quantity"),
        ({"quantity": 1001}, "out-of-range", "quantity"),
        ({"ring_size": 37}, "out-of-range", "ring_size"),
        ({"scale": 11, "ring_size": None}, "out-of-range", "scale"),
        ({"engraving": ""}, "out-of-range", "engraving"),
        ({"engraving": "x" * 61}, "out-of-range", "engraving"),
        ({"reference": "x" * 101}, "out-of-range", "reference"),
        ({"reference": "a\0b"}, "out-of-range", "U+0000"),
        ({"alloy": "Gold 14K!"}, "out-of-range", "alloy"),
        ({"model": "A" * 64}, "out-of-range", "model"),
        ({"deadline": "soon"}, "out-of-range", "deadline"),
        ({"deadline": "2020-01-01"}, "deadline-passed", "2020-01-01"),
        ({"scale": 1.5}, "ring-size-or-scale", "scale"),
        ({"approve_up_to": "0"}, "out-of-range", "approve_up_to"),
        ({"approve_up_to": "-1"}, "out-of-range", "approve_up_to"),
        ({"approve_up_to": "1000000.01"}, "out-of-range", "approve_up_to"),
        ({"approve_up_to": "NaN"}, "out-of-range", "approve_up_to"),
        ({"approve_up_to": "sNaN"}, "out-of-range", "approve_up_to"),
        ({"approve_up_to": "Infinity"}, "out-of-range", "approve_up_to"),
        ({"approve_up_to": "much"}, "out-of-range", "approve_up_to"),
    ],
    ids=str,
)
async def test_an_order_that_does_not_fit_is_told_which_field(
    partner: Partner, model: str, changes: dict[str, Any], code: str, named: str
) -> None:
    body = problem(await post_order(partner, {**order_body(model), **changes}), 422, code)
    assert named in body["detail"]


@pytest.mark.parametrize("field", ["model", "alloy", "finish"])
async def test_a_missing_field_is_named(partner: Partner, model: str, field: str) -> None:
    body = order_body(model)
    del body[field]
    assert field in problem(await post_order(partner, body), 422, "missing-field")["detail"]


async def test_what_is_no_json_or_too_much_or_of_another_type(partner: Partner) -> None:
    headers = {"Idempotency-Key": new_id().hex, "Content-Type": "application/json"}
    problem(await partner.post("/v1/orders", content=b"{", headers=headers), 400, "not-json")
    problem(await partner.post("/v1/orders", content=b"", headers=headers), 400, "not-json")
    problem(await partner.post("/v1/orders", content=b'{"model": "\xff"}', headers=headers), 400, "not-json")
    oversize = b'{"model": "' + b"a" * 70_000 + b'"}'
    problem(await partner.post("/v1/orders", content=oversize, headers=headers), 413, "body-too-large")
    form = headers | {"Content-Type": "application/x-www-form-urlencoded"}
    problem(await partner.post("/v1/orders", content=b"model=a", headers=form), 415, "not-json")


async def test_unknown_routes(partner: Partner) -> None:
    assert (await partner.get("/v1/rings")).status_code == 404
    assert (await partner.delete("/v1/orders")).status_code == 405


@pytest.mark.parametrize("key", [None, "", "x" * 201, "a\tb"], ids=["none", "empty", "long", "unprintable"])
async def test_an_order_needs_an_idempotency_key(partner: Partner, model: str, key: str | None) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    response = await partner.post("/v1/orders", json=order_body(model), headers=headers)
    problem(response, 400, "idempotency-key-missing")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=many", "after=5", "status=MELTED"])
async def test_a_list_with_a_wrong_parameter_names_it(partner: Partner, query: str) -> None:
    body = problem(await partner.get(f"/v1/orders?{query}"), 400, "bad-parameter")
    assert query.partition("=")[0] in body["detail"]


# -- sent again -------------------------------------------------------------------------------------------------------


async def test_the_same_again_gives_the_same_order(partner: Partner, model: str, stack: Stack) -> None:
    key = new_id().hex
    first = await post_order(partner, order_body(model), key)
    assert first.status_code == 202
    assert first.headers["location"] == f"/v1/orders/{first.json()['order_id']}"
    assert first.json()["code"] == short_code(UUID(first.json()["order_id"]))
    again = await post_order(partner, order_body(model), key)
    assert (again.status_code, again.json()) == (202, first.json())
    reordered = dict(reversed(order_body(model).items()))
    assert (await post_order(partner, reordered, key)).json() == first.json()


async def test_another_order_under_the_same_key_is_refused(partner: Partner, model: str) -> None:
    key = new_id().hex
    order_id = await submit(partner, model, key=key)
    body = problem(await post_order(partner, order_body(model, quantity=2), key), 422, "idempotency-key-reused")
    assert body["order_id"] == order_id


async def test_keys_of_two_partners_do_not_meet(partner: Partner, model: str, stack: Stack) -> None:
    key = new_id().hex
    mine = await submit(partner, model, key=key)
    async with await a_partner(stack) as other:
        theirs = await submit(other, await an_uploaded_model(other), key=key)
        assert theirs != mine


async def test_the_same_key_from_50_at_once_is_one_order(partner: Partner, model: str, stack: Stack) -> None:
    for _ in range(3):
        key = new_id().hex
        answers = await asyncio.gather(*(post_order(partner, order_body(model), key) for _ in range(50)))
        assert {a.status_code for a in answers} == {202}
        (order_id,) = {a.json()["order_id"] for a in answers}
        found = await rows(
            stack,
            "SELECT order_id FROM requests WHERE client_id = $1 AND idempotency_key = $2",
            partner.client_id,
            key,
        )
        assert [str(r["order_id"]) for r in found] == [order_id]
        assert (await order_at(partner, order_id, "PRICE_CALCULATED"))["version"] == 2


async def test_what_was_accepted_stays_accepted_when_it_is_sent_again_after_its_model_was_refused(
    partner: Partner, stack: Stack, tmp_path: Path
) -> None:
    """The first answer may have been lost on the way; the second must not depend on what happened since."""
    content = a_model_file()
    digest, registered = await register_model(partner, content, sha256=a_digest())
    assert registered["upload"]
    await put_past_s3(stack, partner, digest, content, tmp_path)
    key = new_id().hex
    first = await post_order(partner, order_body(digest), key)
    assert first.status_code == 202, first.text
    await order_at(partner, first.json()["order_id"], "PRICE_FAILED")
    problem(await post_order(partner, order_body(digest)), 409, "model-refused")
    again = await post_order(partner, order_body(digest), key)
    assert (again.status_code, again.json()) == (202, first.json())
    problem(await post_order(partner, order_body(digest, quantity=2), key), 422, "idempotency-key-reused")


async def put_past_s3(stack: Stack, partner: Partner, digest: str, content: bytes, tmp_path: Path) -> None:
    """Bring a file that is not the announced one into staging, as it would be if the storage checked no sums."""
    env = stack.env("partner_api")
    settings = S3Settings(*(env[f"LOSTWAX_S3_{name}"] for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")))
    (tmp_path / "wrong").write_bytes(content)
    staging = Bucket(settings, env["LOSTWAX_STAGING_BUCKET"])
    await staging.upload(staging_key(partner.client_id, digest), tmp_path / "wrong")


async def test_a_file_that_is_not_the_announced_one_fails_the_price_and_can_be_made_good(
    partner: Partner, stack: Stack, tmp_path: Path
) -> None:
    content = a_model_file()
    digest, _ = await register_model(partner, content)
    await put_past_s3(stack, partner, digest, b"x" * len(content), tmp_path)
    order = await order_at(partner, await submit(partner, digest), "PRICE_FAILED")
    assert order["failure"]["code"] == "model_digest_differs"
    assert order["failure"]["mended_by"] == "customer"
    refused = (await partner.get(f"/v1/models/{digest}")).json()
    assert refused["state"] == "refused"
    assert "sha-256" in refused["failure"]
    assert refused["failure"] in problem(await post_order(partner, order_body(digest)), 409, "model-refused")["detail"]
    assert await an_uploaded_model(partner, content) == digest
    await order_at(partner, await submit(partner, digest), "PRICE_CALCULATED")


async def test_a_file_of_another_length_is_seen_at_once(partner: Partner, stack: Stack, tmp_path: Path) -> None:
    content = a_model_file()
    digest, _ = await register_model(partner, content)
    await put_past_s3(stack, partner, digest, content + b"x", tmp_path)
    problem(await post_order(partner, order_body(digest)), 409, "model-size-differs")


# -- models -----------------------------------------------------------------------------------------------------------


async def test_a_model_is_registered_uploaded_and_stored(partner: Partner) -> None:
    content = a_model_file()
    digest, registered = await register_model(partner, content, name="Ring für Åsa.stl")
    assert (registered["state"], registered["name"]) == ("registered", "Ring für Åsa.stl")
    assert registered["upload"]["method"] == "PUT"
    again = await register_model(partner, content)
    assert again[1]["upload"], "the link may have been lost: there is another"
    assert (await put_file(registered["upload"], content)).status_code == 200
    order_id = await submit(partner, digest)
    await order_at(partner, order_id, "PRICE_CALCULATED")

    async def stored() -> bool:
        return bool((await partner.get(f"/v1/models/{digest}")).json()["state"] == "stored")

    await wait_for(stored)
    answer = await partner.post("/v1/models", json={"name": "b.stl", "size_bytes": len(content), "sha256": digest})
    assert answer.status_code == 200
    assert answer.json().get("upload") is None


async def test_a_model_of_anothers_is_as_unknown_as_one_that_never_was(
    partner: Partner, model: str, stack: Stack
) -> None:
    async with await a_partner(stack) as other:
        for digest in (model, a_digest(), "A" * 64, "short", "%00", "a%00b"):
            problem(await other.get(f"/v1/models/{digest}"), 404, "not-found")
        problem(await post_order(other, order_body(model)), 422, "model-unknown")
        problem(await post_order(other, order_body(a_digest())), 422, "model-unknown")
        _, registered = await register_model(other, a_model_file(), sha256=model)
        assert registered["upload"], "that somebody has it already is nobody's business"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"size_bytes": 0}, "out-of-range"),
        ({"size_bytes": "5"}, "wrong-type"),
        ({"size_bytes": 1_000_000_001}, "model-too-large"),
        ({"name": ""}, "out-of-range"),
        ({"name": "x" * 201}, "out-of-range"),
        ({"name": "a\0.stl"}, "out-of-range"),
        ({"sha256": "xyz"}, "out-of-range"),
        ({"key": "../../etc"}, "unknown-field"),
    ],
    ids=str,
)
async def test_a_registration_that_does_not_fit(partner: Partner, changes: dict[str, Any], code: str) -> None:
    body = {"name": "a.stl", "size_bytes": 84, "sha256": a_digest(), **changes}
    problem(await partner.post("/v1/models", json=body), 422, code)


async def test_a_model_that_is_not_uploaded_cannot_be_ordered_yet(partner: Partner) -> None:
    content = a_model_file()
    digest, registered = await register_model(partner, content)
    key = new_id().hex
    problem(await post_order(partner, order_body(digest), key), 409, "model-not-uploaded")
    await put_file(registered["upload"], content)
    assert (await post_order(partner, order_body(digest), key)).status_code == 202


async def test_a_link_takes_only_the_file_that_was_announced(partner: Partner) -> None:
    content = a_model_file()
    digest, registered = await register_model(partner, content)
    upload = registered["upload"]
    other = a_model_file()[: len(content)].ljust(len(content), b"\0")
    assert (await put_file(upload, other)).status_code >= 400
    without_sum = {**upload, "headers": {k: v for k, v in upload["headers"].items() if "sha256" not in k}}
    assert (await put_file(without_sum, content)).status_code >= 400
    own_sum = base64_sha256(other)
    forged = {**upload, "headers": {**upload["headers"], "x-amz-checksum-sha256": own_sum}}
    assert (await put_file(forged, other)).status_code >= 400
    shorter = {**upload, "headers": {**upload["headers"], "Content-Length": str(len(content) - 1)}}
    assert (await put_file(shorter, content[:-1])).status_code >= 400
    problem(await post_order(partner, order_body(digest)), 409, "model-not-uploaded")
    assert (await put_file(upload, content)).status_code == 200
    await order_at(partner, await submit(partner, digest), "PRICE_CALCULATED")


def base64_sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


@pytest.mark.parametrize(
    "name",
    ["truncated.stl", "nan.stl", "infinite.stl", "hole.stl", "zero-triangles.stl"],
)
async def test_a_broken_model_is_priced_with_a_reason_instead(partner: Partner, tmp_path: Path, name: str) -> None:
    (sample,) = [s for s in samples.broken(tmp_path) if s.name == name]
    digest = await an_uploaded_model(partner, sample.path.read_bytes())
    order = await order_at(partner, await submit(partner, digest), "PRICE_FAILED")
    assert order["failure"]["code"] == sample.why
    assert order["failure"]["mended_by"] == "customer"
    detail = order["failure"]["detail"]
    assert len(detail.split()) >= 4, "a code is no explanation"
    assert detail[0].isupper()
    assert not {"Error", "Exception", "Traceback", "None", "nan"} & set(detail.split())
    assert order.get("quote") is None
    assert (await partner.get(f"/v1/orders/{order['order_id']}")).json() == order


async def test_an_empty_file_cannot_even_be_announced_or_is_refused_with_a_reason(partner: Partner) -> None:
    empty = hashlib.sha256(b"").hexdigest()
    problem(
        await partner.post("/v1/models", json={"name": "a.stl", "size_bytes": 0, "sha256": empty}), 422, "out-of-range"
    )
    digest, registered = await register_model(partner, b"", sha256=empty)
    upload = registered["upload"]
    nothing = {**upload, "headers": {**upload["headers"], "Content-Length": "0"}}
    assert (await put_file(nothing, b"")).status_code >= 400
    problem(await post_order(partner, order_body(digest)), 409, "model-not-uploaded")


# -- orders -----------------------------------------------------------------------------------------------------------


async def test_an_order_of_anothers_is_as_absent_as_one_that_never_was(
    partner: Partner, model: str, stack: Stack
) -> None:
    order_id = await submit(partner, model)
    order = await order_at(partner, order_id, "PRICE_CALCULATED")
    accept = {"quote_id": order["quote"]["quote_id"], "amount": order["quote"]["amount"]}
    async with await a_partner(stack) as other:
        for foreign in (order_id, str(new_id()), "no-uuid", "%00"):
            problem(await other.get(f"/v1/orders/{foreign}"), 404, "not-found")
            problem(await other.post(f"/v1/orders/{foreign}/accept", json=accept), 404, "not-found")
        assert (await other.get("/v1/orders")).json()["orders"] == []
        mine = await partner.post(f"/v1/orders/{order_id}/accept", json=accept)
        command_id = mine.json()["command_id"]
        for foreign in (command_id, str(new_id()), "no-uuid"):
            problem(await other.get(f"/v1/commands/{foreign}"), 404, "not-found")
    await order_at(partner, order_id, "MANUFACTURING_APPROVED")


async def test_everything_that_was_ordered_is_kept(partner: Partner, model: str) -> None:
    wish: dict[str, Any] = {
        "alloy": "sterling-925",
        "finish": "as-cast",
        "quantity": 3,
        "ring_size": 58.5,
        "engraving": 'Für immer – "永遠" 💍',
        "deadline": (datetime.now(UTC).date() + timedelta(days=30)).isoformat(),
        "reference": "PO 2026/117 <b>",
    }
    order_id = await submit(partner, model, **wish)
    order = await order_at(partner, order_id, "PRICE_CALCULATED")
    specification = order["specification"]
    for field in ("alloy", "finish", "quantity", "ring_size", "engraving", "deadline"):
        assert specification[field] == wish[field]
    assert specification["model"]["sha256"] == model
    assert order["reference"] == wish["reference"]
    amounts = [Decimal(line["amount"]) for line in order["quote"]["lines"]]
    assert sum(amounts) == Decimal(order["quote"]["amount"]) > 0


async def test_a_price_is_accepted_once(partner: Partner, model: str) -> None:
    order_id = await submit(partner, model)
    path = f"/v1/orders/{order_id}/accept"
    quote = (await order_at(partner, order_id, "PRICE_CALCULATED"))["quote"]
    good = {"quote_id": quote["quote_id"], "amount": quote["amount"]}
    more = str(Decimal(quote["amount"]) + Decimal("0.01"))
    assert (
        quote["amount"]
        in problem(await partner.post(path, json={**good, "amount": more}), 409, "amount-differs")["detail"]
    )
    for strange in ("NaN", "sNaN", "Infinity", "-1"):
        assert (await partner.post(path, json={**good, "amount": strange})).status_code in (409, 422)
    problem(await partner.post(path, json={**good, "quote_id": str(new_id())}), 409, "quote-superseded")
    problem(await partner.post(path, json={"amount": "1"}), 422, "missing-field")

    answers = await asyncio.gather(*(partner.post(path, json=good) for _ in range(10)))
    accepted = [a for a in answers if a.status_code == 202]
    assert accepted
    for refused in [a for a in answers if a.status_code != 202]:
        problem(refused, 409, "already-accepted")
    (command_id,) = {a.json()["command_id"] for a in accepted}
    order = await order_at(partner, order_id, "MANUFACTURING_APPROVED")
    assert order["version"] == 3
    problem(await partner.post(path, json=good), 409, "already-accepted")
    problem(await partner.post(path, json={**good, "amount": more}), 409, "no-open-price")
    command = await command_settled(partner, command_id)
    assert (command["state"], command["order_id"], command["action"]) == ("accepted", order_id, "accept")


async def test_there_is_no_price_to_accept_before_there_is_one(partner: Partner) -> None:
    content = a_model_file()[:-10]
    digest = await an_uploaded_model(partner, content)
    order_id = await submit(partner, digest)
    await order_at(partner, order_id, "PRICE_FAILED")
    body = problem(
        await partner.post(f"/v1/orders/{order_id}/accept", json={"quote_id": str(new_id()), "amount": "1"}),
        409,
        "no-open-price",
    )
    assert body["status_now"] == "PRICE_FAILED"


async def publish_changes(stack: Stack, *orders: Any) -> None:
    """Tell what Orders did not: the channel sees states of an order that Orders does not have."""
    publisher = Publisher(stack.env("mes")["LOSTWAX_KAFKA_BOOTSTRAP"], client_id="test")
    await publisher.publish(
        [
            as_record(
                topics.ORDER_CHANGES.name,
                partition_of(bucket_of(order.order_id)),
                "orders.order_changed.v1",
                catalogue.encode(OrderChanged(order)),
                key=str(order.order_id),
            )
            for order in orders
        ]
    )
    await asyncio.to_thread(publisher.close)


async def as_orders_knows_it(stack: Stack, order_id: str) -> Any:
    async with httpx.AsyncClient(base_url=stack.url("orders")) as http:
        token = service_token(stack, "partner_api", "orders")
        response = await http.get(f"/v1/orders/{order_id}", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 200, response.text
    return msgspec.json.decode(response.content, type=type(an_order()))


async def test_a_quote_that_orders_has_replaced_is_refused_by_orders(
    partner: Partner, model: str, stack: Stack
) -> None:
    """Our copy says one thing, Orders another: Orders decides, and its answer is shown."""
    order_id = await submit(partner, model)
    await order_at(partner, order_id, "PRICE_CALCULATED")
    true = await as_orders_knows_it(stack, order_id)
    other_quote = a_quote(expires_at=datetime.now(UTC) + timedelta(days=1))
    await publish_changes(stack, msgspec.structs.replace(true, version=3, quote=other_quote))

    async def sees_the_other() -> bool:
        return bool(
            (await partner.get(f"/v1/orders/{order_id}")).json()["quote"]["quote_id"] == str(other_quote.quote_id)
        )

    await wait_for(sees_the_other)
    path = f"/v1/orders/{order_id}/accept"
    superseded = {"quote_id": str(true.quote.quote_id), "amount": str(true.quote.amount)}
    problem(await partner.post(path, json=superseded), 409, "quote-superseded")
    response = await partner.post(path, json={"quote_id": str(other_quote.quote_id), "amount": "129.50"})
    assert response.status_code == 202
    command = await command_settled(partner, response.json()["command_id"])
    assert command["state"] == "refused"
    assert command["code"] in ("quote_superseded", "stale")
    assert command["detail"]
    assert (await as_orders_knows_it(stack, order_id)) == true


async def command_settled(partner: Partner, command_id: str) -> dict[str, Any]:
    """What became of a command, once Orders has decided."""

    async def settled() -> dict[str, Any] | None:
        command: dict[str, Any] = (await partner.get(f"/v1/commands/{command_id}")).json()
        return command if command["state"] != "pending" else None

    answer: dict[str, Any] = await wait_for(settled)
    return answer


async def test_a_changed_order_gets_another_price_and_the_old_one_is_superseded(partner: Partner, model: str) -> None:
    order_id = await submit(partner, model)
    old = (await order_at(partner, order_id, "PRICE_CALCULATED"))["quote"]
    path = f"/v1/orders/{order_id}"
    problem(await partner.post(f"{path}/resubmit", json={"quantity": 0}), 422, "out-of-range")
    problem(await partner.post(f"{path}/resubmit", json={"scale": 2}), 422, "ring-size-or-scale")
    problem(await partner.post(f"{path}/resubmit", json={"model": a_digest()}), 422, "model-unknown")
    answers = await asyncio.gather(*(partner.post(f"{path}/resubmit", json={"quantity": 3}) for _ in range(5)))
    commands = {a.json()["command_id"] for a in answers if a.status_code == 202}
    assert commands
    states = [(await command_settled(partner, c))["state"] for c in commands]
    assert states.count("accepted") >= 1

    async def priced_anew() -> dict[str, Any] | None:
        order = await order_at(partner, order_id, "PRICE_CALCULATED")
        return order if order["quote"]["quote_id"] != old["quote_id"] else None

    order = await wait_for(priced_anew)
    assert order["specification"]["quantity"] == 3
    assert Decimal(order["quote"]["amount"]) > Decimal(old["amount"])
    superseded = {"quote_id": old["quote_id"], "amount": old["amount"]}
    problem(await partner.post(f"{path}/accept", json=superseded), 409, "quote-superseded")


async def test_a_cancelled_order_is_over(partner: Partner, model: str, stack: Stack) -> None:
    order_id = await submit(partner, model)
    quote = (await order_at(partner, order_id, "PRICE_CALCULATED"))["quote"]
    path = f"/v1/orders/{order_id}"
    async with await a_partner(stack) as other:
        problem(await other.post(f"{path}/cancel", json={"reason": "not mine"}), 404, "not-found")
        problem(await other.post(f"{path}/resubmit", json={}), 404, "not-found")
    problem(await partner.post(f"{path}/cancel", json={"reason": ""}), 422, "out-of-range")
    response = await partner.post(f"{path}/cancel", json={"reason": "The customer changed her mind."})
    assert response.status_code == 202
    assert (await command_settled(partner, response.json()["command_id"]))["state"] == "accepted"
    await order_at(partner, order_id, "CANCELLED")
    accept = {"quote_id": quote["quote_id"], "amount": quote["amount"]}
    assert problem(await partner.post(f"{path}/accept", json=accept), 409, "no-open-price")["status_now"] == "CANCELLED"
    again = await partner.post(f"{path}/cancel", json={"reason": "once more"})
    if again.status_code == 202:
        assert (await command_settled(partner, again.json()["command_id"]))["state"] == "refused"


async def test_an_expired_price_is_refused(partner: Partner, model: str, stack: Stack) -> None:
    order_id = await submit(partner, model)
    await order_at(partner, order_id, "PRICE_CALCULATED")
    true = await as_orders_knows_it(stack, order_id)
    expired = msgspec.structs.replace(true.quote, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await publish_changes(stack, msgspec.structs.replace(true, version=3, quote=expired))

    async def seen() -> bool:
        return bool((await partner.get(f"/v1/orders/{order_id}")).json()["version"] == 3)

    await wait_for(seen)
    accept = {"quote_id": str(expired.quote_id), "amount": str(expired.amount)}
    problem(await partner.post(f"/v1/orders/{order_id}/accept", json=accept), 409, "quote-expired")


async def test_an_older_version_never_replaces_a_newer_one(partner: Partner, model: str, stack: Stack) -> None:
    order_id = await submit(partner, model)
    await order_at(partner, order_id, "PRICE_CALCULATED")
    true = await as_orders_knows_it(stack, order_id)
    older = msgspec.structs.replace(true, version=1, reference="an older one")
    same = msgspec.structs.replace(true, reference="the same version, told again")
    newer = msgspec.structs.replace(true, version=4, reference="the newest")
    await publish_changes(stack, older, same, newer, older, same)

    async def newest() -> bool:
        return bool((await partner.get(f"/v1/orders/{order_id}")).json()["reference"] == "the newest")

    await wait_for(newest)
    await asyncio.sleep(0.3)
    assert await newest()


async def test_paging_goes_newest_first_without_gaps_or_repeats(stack: Stack) -> None:
    async with await a_partner(stack) as paging:
        digest = await an_uploaded_model(paging)
        sent = [await submit(paging, digest, reference=f"{n}") for n in range(23)]
        for limit in (1, 5, 22, 23, 24, 200):
            seen: list[str] = []
            after: str | None = None
            while True:
                query = {"limit": str(limit)} | ({"after": after} if after else {})
                page = (await paging.get("/v1/orders", params=query)).json()
                assert len(page["orders"]) <= limit
                seen += [order["order_id"] for order in page["orders"]]
                assert len(seen) == len(set(seen))
                after = page.get("next")
                if after is None:
                    break
                if limit == 5 and len(seen) == 10:
                    await submit(paging, digest, reference="came in between")
            assert [i for i in seen if i in sent] == sent[::-1]
        await order_at(paging, sent[-1], "PRICE_CALCULATED")
        for order_id in sent:
            await order_at(paging, order_id, "PRICE_CALCULATED")
        priced = (await paging.get("/v1/orders?status=PRICE_CALCULATED&limit=200")).json()["orders"]
        assert set(sent) <= {order["order_id"] for order in priced}
        assert (await paging.get("/v1/orders?status=SHIPPED")).json() == {"orders": [], "source": "redis", "next": None}


# -- publishing -------------------------------------------------------------------------------------------------------


async def test_a_paused_topic_keeps_orders_until_it_goes_on(partner: Partner, model: str, stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.url("partner_api")) as http:
        http.headers["Authorization"] = f"Bearer {stack.console_token('partner_api')}"
        path = "/v1/publishing/orders.requests"
        problem(await http.get("/v1/publishing/orders.changes"), 404, "not-found")
        problem(await http.put(path, json={"rate_per_s": 0}), 422, "out-of-range")
        problem(await http.put(path, json={"speed": 5}), 422, "unknown-field")
        wrong = {"Authorization": f"Bearer {service_token(stack, 'orders', 'mes')}"}
        problem(await http.put(path, json={"paused": True}, headers=wrong), 401, "unauthorized")

        assert (await http.put(path, json={"paused": True})).status_code == 200
        try:

            async def in_force() -> bool:
                return bool((await http.get(path)).json()["paused"])

            await wait_for(in_force, 2)
            sent = [await submit(partner, model) for _ in range(20)]
            await asyncio.sleep(1)
            for order_id in sent:
                order = (await partner.get(f"/v1/orders/{order_id}")).json()
                assert (order["status"], order["version"]) == ("SUBMITTED", 0)
            waiting = await rows(stack, "SELECT key FROM outbox WHERE topic = 'orders.requests'")
            assert {r["key"] for r in waiting} == set(sent)
        finally:
            assert (await http.put(path, json={})).status_code == 200
        for order_id in sent:
            await order_at(partner, order_id, "PRICE_CALCULATED")
        assert (await http.get(path)).json() == {"rate_per_s": None, "burst": 1000, "paused": False}
