"""Web hooks through the running services, told to a small real receiver: every version, once, in order, signed."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from tests.builders import (
    Partner,
    a_partner,
    an_approved_order,
    an_operator,
    an_order,
    an_uploaded_model,
    as_record,
    order_at,
    order_views,
    problem,
    service_token,
    submit,
    wait_all_read,
    wait_for,
)
from tests.partner_api.receivers import Heard, Receiver

from lostwax.channel.handlers import Door
from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, new_id, partition_of
from lostwax.contracts.orders import ActorKind, Order, OrderChanged, Status
from lostwax.kit.auth import ServiceSigner
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import Publisher
from lostwax.kit.postgres import Connection, open_pool
from lostwax.kit.webhooks import new_secret
from lostwax.local.places import STACKS
from lostwax.local.stack import Stack
from lostwax.partner_api import hooks_api, hooks_store
from lostwax.partner_api.changes import take_changes
from lostwax.partner_api.hooks import delivery_id
from lostwax.partner_api.hooks_delivery import Deliverer
from lostwax.partner_api.hooks_sender import Sender


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack of this module's own, for its services are killed. Hooks of any local stack may go to this machine."""
    services = ("partner_api", "orders", "pricing", "mes", "crm")
    started = Stack.start(STACKS / f"hooks-{os.getpid()}", owned=True, fresh=True, services=services)
    try:
        wait_all_read(started)
        yield started
    finally:
        started.down(remove=True)


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    yield connection
    await connection.close()


async def a_hook(partner: Partner, receiver: Receiver) -> dict[str, Any]:
    response = await partner.post("/v1/hooks", json={"url": receiver.url})
    assert response.status_code == 201, response.text
    hook: dict[str, Any] = response.json()
    return hook


async def the_log(partner: Partner, hook: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    response = await partner.get(f"/v1/hooks/{hook['hook_id']}/deliveries", params=query)
    assert response.status_code == 200, response.text
    deliveries: list[dict[str, Any]] = response.json()["deliveries"]
    return deliveries


async def cancelled(partner: Partner, order_id: str) -> None:
    response = await partner.post(f"/v1/orders/{order_id}/cancel", json={"reason": "changed my mind"})
    assert response.status_code == 202, response.text
    await order_at(partner, order_id, "CANCELLED")


# -- every version, once, in order ------------------------------------------------------------------------------------


async def test_every_version_arrives_once_in_order_and_signed(partner: Partner, receiver: Receiver) -> None:
    hook = await a_hook(partner, receiver)
    order_id = await an_approved_order(partner, reference="PO-7")
    await cancelled(partner, order_id)
    await wait_for(lambda: len(receiver.heard) >= 4)
    await asyncio.sleep(0.5)
    assert receiver.versions(order_id) == [1, 2, 3, 4]
    assert len({h.id for h in receiver.heard}) == 4
    signature = Webhook(hook["secret"])
    for heard in receiver.heard:
        assert signature.verify(heard.body, heard.headers) == heard.message
        with pytest.raises(WebhookVerificationError):
            signature.verify(heard.body.replace(b"order.changed", b"order.forged_"), heard.headers)
        assert heard.headers["content-type"] == "application/json"
        assert heard.message["type"] == "order.changed"
    steps = [(h.message["transition"]["from"], h.message["transition"]["to"]) for h in receiver.heard]
    assert steps == [
        (None, "SUBMITTED"),
        ("SUBMITTED", "PRICE_CALCULATED"),
        ("PRICE_CALCULATED", "MANUFACTURING_APPROVED"),
        ("MANUFACTURING_APPROVED", "CANCELLED"),
    ]
    last = receiver.heard[-1].message
    assert last["transition"]["reason"] == "changed my mind"
    assert set(last["transition"]) == {"from", "to", "at", "reason"}
    assert last["data"] == (await partner.get(f"/v1/orders/{order_id}")).json()
    log = await the_log(partner, hook)
    assert [(d["version"], d["state"], d["attempts"], d["response_status"]) for d in log] == [
        (version, "delivered", 1, 204) for version in (4, 3, 2, 1)
    ]
    assert [d["webhook_id"] for d in log] == [h.id for h in reversed(receiver.heard)]


async def test_who_works_on_an_order_is_not_told(stack: Stack, partner: Partner, receiver: Receiver) -> None:
    await a_hook(partner, receiver)
    order_id = await an_approved_order(partner)
    async with await an_operator(stack, "Zebedee Quux") as operator:

        async def claimed() -> bool:
            return (await operator.post(f"/v1/orders/{order_id}/claim")).status_code == 200

        await wait_for(claimed)
        await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3, 4])
        told = b"".join(h.body for h in receiver.heard).decode()
        assert "MANUFACTURING_STARTED" in told
        assert "Zebedee" not in told
        assert str(operator.operator_id) not in told


async def test_many_orders_each_in_its_own_sequence(partner: Partner, receiver: Receiver) -> None:
    hook = await a_hook(partner, receiver)
    model = await an_uploaded_model(partner)
    order_ids = await asyncio.gather(*(submit(partner, model, approve_up_to="1000000") for _ in range(40)))
    await wait_for(lambda: all(receiver.versions(i) == [1, 2, 3] for i in order_ids), 40)
    assert len(receiver.heard) == 120
    seen: list[str] = []
    after = None
    while True:
        query = {"limit": "7"} | ({"after": str(after)} if after is not None else {})
        page = (await partner.get(f"/v1/hooks/{hook['hook_id']}/deliveries", params=query)).json()
        seen += [d["webhook_id"] for d in page["deliveries"]]
        if (after := page["next"]) is None:
            break
    assert len(seen) == len(set(seen)) == 120
    one = await the_log(partner, hook, order_id=order_ids[3])
    assert [d["version"] for d in one] == [3, 2, 1]


async def test_a_hook_is_told_of_what_comes_after_it(partner: Partner, receiver: Receiver) -> None:
    order_id = await an_approved_order(partner)
    await a_hook(partner, receiver)
    await cancelled(partner, order_id)
    await wait_for(lambda: receiver.versions(order_id) == [4])


async def test_two_hooks_have_each_their_own_ids_and_a_removed_one_is_told_no_more(partner: Partner) -> None:
    first, second = Receiver(), Receiver()
    await first.up()
    await second.up()
    try:
        hook, _ = await a_hook(partner, first), await a_hook(partner, second)
        order_id = await an_approved_order(partner)
        await wait_for(lambda: first.versions(order_id) == second.versions(order_id) == [1, 2, 3])
        assert not {h.id for h in first.heard} & {h.id for h in second.heard}
        assert (await partner.delete(f"/v1/hooks/{hook['hook_id']}")).status_code == 204
        await cancelled(partner, order_id)
        await wait_for(lambda: second.versions(order_id) == [1, 2, 3, 4])
        await asyncio.sleep(0.3)
        assert first.versions(order_id) == [1, 2, 3]
        assert [h["url"] for h in (await partner.get("/v1/hooks")).json()["hooks"]] == [second.url]
    finally:
        await first.down()
        await second.down()


# -- trouble over there -----------------------------------------------------------------------------------------------


async def test_a_receiver_that_was_down_gets_everything_in_order_when_it_is_back(
    partner: Partner, receiver: Receiver
) -> None:
    hook = await a_hook(partner, receiver)
    await receiver.down()
    order_id = await an_approved_order(partner)

    async def tried() -> bool:
        log = await the_log(partner, hook)
        return {(d["version"], d["state"]) for d in log} == {(1, "due"), (2, "waiting"), (3, "waiting")} and bool(
            log[-1]["attempts"]
        )

    await wait_for(tried)
    first = (await the_log(partner, hook))[-1]
    assert first["response_status"] is None
    assert first["error"]
    assert first["next_attempt_at"]
    await receiver.up()
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3], 20)


async def test_a_hook_that_ailed_long_gets_all_that_waits_as_soon_as_it_answers(
    partner: Partner, receiver: Receiver, database: Connection
) -> None:
    hook = await a_hook(partner, receiver)
    receiver.say = lambda _: 502
    model = await an_uploaded_model(partner)
    order_ids = [await submit(partner, model, approve_up_to="1000000") for _ in range(10)]

    async def failures() -> int:
        return int(await database.fetchval("SELECT failures FROM hooks WHERE hook_id = $1", hook["hook_id"]))

    async def ailing() -> bool:
        return await failures() >= hooks_store.AILING

    await wait_for(ailing)
    assert await database.fetchval("SELECT retry_at > now() FROM hooks WHERE hook_id = $1", hook["hook_id"])
    receiver.say = lambda _: 204
    # As if it had been down for half a day: each order's next try is hours away, but for one.
    await database.execute(
        "UPDATE hook_deliveries SET next_at = now() + interval '5 hours' * (order_id <> $2)::int"
        " WHERE hook_id = $1 AND state = 'due'",
        hook["hook_id"],
        UUID(order_ids[0]),
    )
    await database.execute("NOTIFY hooks")
    await wait_for(lambda: all(receiver.versions(i) == [1, 2, 3] for i in order_ids), 30)
    assert await failures() == 0


async def test_a_refused_delivery_comes_again_under_its_id_and_holds_up_its_own_order_only(
    partner: Partner, receiver: Receiver
) -> None:
    hook = await a_hook(partner, receiver)
    model = await an_uploaded_model(partner)

    def say(heard: Heard) -> int:
        first_time = all(h.id != heard.id for h in receiver.heard)
        return 500 if heard.message["data"]["reference"] == "bad" and first_time else 204

    receiver.say = say
    receiver.tail = b"out of \0 memory " * 200
    order_id = await submit(partner, model, reference="bad")

    async def tried() -> dict[str, Any] | None:
        log = await the_log(partner, hook, order_id=order_id)
        return log[-1] if log and log[-1]["attempts"] else None

    refused_one = await wait_for(tried)
    assert (refused_one["response_status"], refused_one["error"]) == (500, "answered 500")
    assert 900 < len(refused_one["response_body"]) <= 1024
    other = await submit(partner, model, approve_up_to="1000000")
    await wait_for(lambda: receiver.versions(other) == [1, 2, 3])
    if len(receiver.heard) == 4:  # the other order went by while this one waits
        assert receiver.versions(order_id) == []
    await wait_for(lambda: receiver.versions(order_id) == [1, 2], 25)
    ours = [h for h in receiver.heard if h.order_id == order_id]
    assert [(h.version, h.status) for h in ours] == [(1, 500), (1, 204), (2, 500), (2, 204)]
    expected = [str(delivery_id(UUID(hook["hook_id"]), UUID(order_id), version)) for version in (1, 2)]
    assert list(dict.fromkeys(h.id for h in ours)) == expected


async def test_redirects_are_not_followed(partner: Partner, receiver: Receiver) -> None:
    hook = await a_hook(partner, receiver)
    receiver.say = lambda _: 307
    receiver.extra = f"location: {receiver.url}\r\n"
    await partner.post(f"/v1/hooks/{hook['hook_id']}/test")

    async def settled() -> dict[str, Any] | None:
        log = await the_log(partner, hook)
        return log[0] if log and log[0]["state"] != "due" else None

    test = await wait_for(settled)
    assert (test["state"], test["error"]) == ("given_up", "answered 307; redirects are not followed")
    assert len(receiver.heard) == 1


async def test_a_receiver_that_wants_no_more_is_left_alone_until_it_is_enabled(
    partner: Partner, receiver: Receiver
) -> None:
    hook = await a_hook(partner, receiver)
    path = f"/v1/hooks/{hook['hook_id']}"
    receiver.say = lambda _: 410
    order_id = await an_approved_order(partner)

    async def disabled() -> str | None:
        return str((await partner.get(path)).json()["disabled_why"] or "") or None

    assert await wait_for(disabled) == "answered 410 Gone"
    await asyncio.sleep(0.5)
    assert len(receiver.heard) == 1
    problem(await partner.post(f"{path}/test"), 409, "hook-disabled")
    receiver.say = lambda _: 204
    enabled = await partner.post(f"{path}/enable")
    assert (enabled.status_code, enabled.json()["disabled_at"]) == (200, None)
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3])


async def test_what_fails_for_days_is_given_up_and_in_the_end_the_hook_is_disabled(
    partner: Partner, receiver: Receiver, database: Connection
) -> None:
    hook = await a_hook(partner, receiver)
    receiver.say = lambda _: 503
    order_id = await an_approved_order(partner)
    await cancelled(partner, order_id)
    for version in (1, 2, 3):

        async def aged(version: int = version) -> bool:
            done = await database.execute(
                "UPDATE hook_deliveries SET first_attempt_at = now() - interval '4 days', next_at = now()"
                " WHERE hook_id = $1 AND version = $2 AND state = 'due' AND attempts > 0",
                hook["hook_id"],
                version,
            )
            await database.execute("NOTIFY hooks")
            return bool(done == "UPDATE 1")

        await wait_for(aged)

    async def disabled() -> bool:
        return (await partner.get(f"/v1/hooks/{hook['hook_id']}")).json()["disabled_at"] is not None

    await wait_for(disabled)
    log = await the_log(partner, hook)
    assert [(d["version"], d["state"]) for d in log] == [(4, "due"), *((v, "given_up") for v in (3, 2, 1))]
    receiver.say = lambda _: 204
    await partner.post(f"/v1/hooks/{hook['hook_id']}/enable")
    await wait_for(lambda: receiver.versions(order_id) == [4])


async def test_a_test_message_is_sent_once(partner: Partner, receiver: Receiver) -> None:
    hook = await a_hook(partner, receiver)
    asked = await partner.post(f"/v1/hooks/{hook['hook_id']}/test")
    assert asked.status_code == 202, asked.text
    await wait_for(lambda: receiver.heard)
    message = Webhook(hook["secret"]).verify(receiver.heard[0].body, receiver.heard[0].headers)
    assert (message["type"], message["data"]) == ("hook.test", {"hook_id": hook["hook_id"]})
    assert asked.json()["webhook_id"] == receiver.heard[0].id


async def test_while_a_secret_is_changed_both_sign_and_then_only_the_new_one(
    partner: Partner, receiver: Receiver, database: Connection
) -> None:
    hook = await a_hook(partner, receiver)
    path = f"/v1/hooks/{hook['hook_id']}"
    assert (await partner.post(f"{path}/rotate-secret", json={"grace_s": 604_801})).status_code == 422
    changed = await partner.post(f"{path}/rotate-secret", json={"grace_s": 3600})
    assert changed.status_code == 201, changed.text
    old, new = Webhook(hook["secret"]), Webhook(changed.json()["secret"])
    assert await a_test_sent(partner, path, receiver, 1)
    heard = receiver.heard[0]
    assert len(heard.headers["webhook-signature"].split()) == 2
    for signature in (old, new):
        assert signature.verify(heard.body, heard.headers) == heard.message
    await database.execute("UPDATE hooks SET old_secret_until = now() WHERE hook_id = $1", hook["hook_id"])
    assert await a_test_sent(partner, path, receiver, 2)
    heard = receiver.heard[1]
    assert new.verify(heard.body, heard.headers) == heard.message
    with pytest.raises(WebhookVerificationError):
        old.verify(heard.body, heard.headers)
    await hooks_store.forget_old_secrets(database)
    kept = await database.fetchrow("SELECT secret, old_secret FROM hooks WHERE hook_id = $1", hook["hook_id"])
    assert kept is not None
    assert tuple(kept) == (changed.json()["secret"], None)
    assert (await partner.post(f"{path}/rotate-secret", json={"grace_s": 3600})).status_code == 201
    assert (await partner.delete(path)).status_code == 204
    left = await database.fetchrow("SELECT secret, old_secret FROM hooks WHERE hook_id = $1", hook["hook_id"])
    assert left is not None
    assert tuple(left) == ("", None)
    problem(await partner.post(f"{path}/rotate-secret", json={}), 404, "not-found")


async def a_test_sent(partner: Partner, path: str, receiver: Receiver, messages: int) -> bool:
    """Once a test message more has come and is settled."""

    async def asked() -> bool:
        return (await partner.post(f"{path}/test")).status_code == 202

    await wait_for(asked)
    return bool(await wait_for(lambda: len(receiver.heard) == messages))


async def test_a_delivery_of_the_log_is_sent_once_more_under_its_id(
    stack: Stack, partner: Partner, receiver: Receiver
) -> None:
    hook = await a_hook(partner, receiver)
    order_id = await an_approved_order(partner)
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3])

    async def settled() -> bool:
        return {d["state"] for d in await the_log(partner, hook)} == {"delivered"}

    await wait_for(settled)
    first = receiver.heard[0]
    path = f"/v1/hooks/{hook['hook_id']}/deliveries"
    # With Orders away it is kept for later: only Orders has what was sent.
    await asyncio.to_thread(stack.stop, "orders")
    try:
        again = await partner.post(f"{path}/{first.id}/redeliver")
        assert (again.status_code, again.json()["state"]) == (202, "due"), again.text
        problem(await partner.post(f"{path}/{first.id}/redeliver"), 409, "delivery-under-way")

        async def tried() -> bool:
            return bool((await the_log(partner, hook))[-1]["error"])

        await wait_for(tried)
        assert "history cannot be read" in (await the_log(partner, hook))[-1]["error"]
    finally:
        await asyncio.to_thread(stack.start_one, "orders")
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3, 1], 30)
    assert (receiver.heard[-1].id, receiver.heard[-1].body) == (first.id, first.body)
    await wait_for(settled)
    await cancelled(partner, order_id)
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3, 1, 4])
    problem(await partner.post(f"{path}/{new_id()}/redeliver"), 404, "not-found")
    test = (await partner.post(f"/v1/hooks/{hook['hook_id']}/test")).json()
    problem(await partner.post(f"{path}/{test['webhook_id']}/redeliver"), 409, "delivery-is-a-test")


# -- trouble over here ------------------------------------------------------------------------------------------------


async def test_a_kill_in_the_middle_of_deliveries_loses_none(
    stack: Stack, partner: Partner, receiver: Receiver
) -> None:
    await a_hook(partner, receiver)
    model = await an_uploaded_model(partner)
    receiver.say = lambda _: None
    order_ids = await asyncio.gather(*(submit(partner, model, approve_up_to="1000000") for _ in range(12)))
    await wait_for(lambda: len(receiver.heard) >= 4)  # as many as one hook gets at once, all hanging
    for order_id in order_ids:
        await order_at(partner, order_id, "MANUFACTURING_APPROVED")
    await asyncio.to_thread(stack.kill, "partner_api")
    receiver.say = lambda _: 204
    await asyncio.to_thread(stack.wait_ready, "partner_api")
    await wait_for(lambda: all(receiver.versions(i) == [1, 2, 3] for i in order_ids), 40)
    assert len(receiver.heard) >= 40
    assert len({h.id for h in receiver.heard}) == 36
    assert len({(h.id, h.body) for h in receiver.heard}) == 36  # what comes again is the same


async def forget(database: Connection, order_id: str) -> None:
    """As if compaction had dropped every version so far before it was read."""
    async with database.transaction():
        # Locked in the order in which the service does it.
        await database.execute("SELECT FROM hook_orders WHERE order_id = $1 FOR UPDATE", order_id)
        await database.execute("DELETE FROM hook_deliveries WHERE order_id = $1", order_id)
        await database.execute("DELETE FROM hook_orders WHERE order_id = $1", order_id)
        await database.execute("UPDATE requests SET version = 0 WHERE order_id = $1", order_id)


async def test_versions_that_were_dropped_are_fetched_from_orders(
    partner: Partner, receiver: Receiver, database: Connection
) -> None:
    await a_hook(partner, receiver)
    order_id = await an_approved_order(partner)
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3])
    await forget(database, order_id)
    first = {h.version: h.id for h in receiver.heard}
    receiver.heard.clear()
    await cancelled(partner, order_id)
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3, 4])
    assert {h.version: h.id for h in receiver.heard if h.version < 4} == first


async def test_with_orders_away_later_versions_wait_for_the_missing_ones(
    stack: Stack, partner: Partner, receiver: Receiver, database: Connection
) -> None:
    hook = await a_hook(partner, receiver)
    order_id = await an_approved_order(partner)
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3])
    headers = {"Authorization": f"Bearer {service_token(stack, 'partner_api', 'orders')}"}
    async with httpx.AsyncClient(base_url=stack.url("orders"), headers=headers) as orders:
        true = msgspec.convert((await orders.get(f"/v1/orders/{order_id}")).json(), Order)
    await asyncio.to_thread(stack.stop, "orders")
    try:
        await forget(database, order_id)
        receiver.heard.clear()
        publisher = Publisher(stack.env("mes")["LOSTWAX_KAFKA_BOOTSTRAP"], client_id="test")
        partition = partition_of(bucket_of(true.order_id))
        payload = catalogue.encode(OrderChanged(true))
        name = "orders.order_changed.v1"
        await publisher.publish([as_record(topics.ORDER_CHANGES.name, partition, name, payload, key=order_id)])

        async def taken() -> bool:
            return bool((await partner.get(f"/v1/orders/{order_id}")).json()["version"] == 3)

        await wait_for(taken)
        model = await an_uploaded_model(partner)
        assert await submit(partner, model)  # intake does not mind
        await asyncio.sleep(1)
        assert receiver.versions(order_id) == []
        assert await the_log(partner, hook, order_id=order_id) == []
    finally:
        await asyncio.to_thread(stack.start_one, "orders")
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3], 40)


async def test_a_batch_may_be_taken_in_twice_and_in_any_order(
    stack: Stack, partner: Partner, database: Connection
) -> None:
    hook = await a_silent_hook(partner, database)
    order_id = new_id()
    await database.execute(
        "INSERT INTO requests (order_id, client_id, idempotency_key, request_hash, accepted_at, body)"
        " VALUES ($1, $2, $3, '', now(), '{}')",
        order_id,
        partner.client_id,
        str(order_id),
    )
    one, two, three, five = (
        an_order(order_id=order_id, account=partner.client_id, version=v, status=Status.SUBMITTED) for v in (1, 2, 3, 5)
    )
    dsn = stack.env("partner_api")["LOSTWAX_DATABASE_URL"]
    pool = await open_pool(dsn, name="test", size=2)
    views = order_views(stack, dsn, pool)
    try:
        door = Door("partner_api", ActorKind.PARTNER, pool, None, views, now=utc_now)  # type: ignore[arg-type]

        async def states() -> list[tuple[int, str]]:
            rows = await database.fetch(
                "SELECT version, state FROM hook_deliveries WHERE hook_id = $1 ORDER BY version", hook
            )
            return [(r["version"], r["state"]) for r in rows]

        await take_changes(door, [one])
        assert await states() == [(1, "due")]
        await take_changes(door, [three, one, two, one])
        await take_changes(door, [two, three])
        assert await states() == [(1, "due"), (2, "waiting"), (3, "waiting")]
        await take_changes(door, [five])
        track = await database.fetchrow(
            "SELECT known, enqueued, settled FROM hook_orders WHERE order_id = $1", order_id
        )
        assert track is not None
        assert tuple(track.values()) == (5, 3, 0)
        assert len(await states()) == 3
        # Another client's order, and one that nobody asked for here, leave no trace.
        await take_changes(door, [an_order(account=partner.client_id), an_order()])
        assert len(await states()) == 3
    finally:
        await views.close()
        await pool.close()


async def a_silent_hook(partner: Partner, database: Connection) -> Any:
    """A hook that is disabled, so that nothing of it is sent."""
    hook_id = new_id()
    await database.execute(
        "INSERT INTO hooks (hook_id, client_id, url, secret, disabled_at, disabled_why)"
        " VALUES ($1, $2, 'https://hooks.example', $3, now(), 'test')",
        hook_id,
        partner.client_id,
        new_secret(),
    )
    return hook_id


async def test_the_log_is_swept(stack: Stack, partner: Partner, receiver: Receiver, database: Connection) -> None:
    silent = await a_silent_hook(partner, database)
    hook = await a_hook(partner, receiver)
    order_id = await an_approved_order(partner)
    await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3])
    kept = await an_approved_order(partner)
    await wait_for(lambda: receiver.versions(kept) == [1, 2, 3])
    await database.execute(
        "UPDATE hook_deliveries SET created_at = now() - interval '31 days' WHERE order_id = $1", order_id
    )
    await database.execute(
        "UPDATE hook_orders SET changed_at = now() - interval '31 days' WHERE order_id = $1", order_id
    )
    environment = stack.env("partner_api")
    pool = await open_pool(environment["LOSTWAX_DATABASE_URL"], name="test", size=2)
    sender = Sender(to_loopback=True)
    try:
        deliverer = Deliverer(
            pool,
            environment["LOSTWAX_DATABASE_URL"],
            environment["LOSTWAX_ORDERS_URL"],
            ServiceSigner("partner_api", environment["LOSTWAX_SERVICE_KEY"]),
            sender,
            render=hooks_api.render,
            now=utc_now,
        )
        await deliverer.sweep()
        assert await the_log(partner, hook, order_id=order_id) == []
        assert len(await the_log(partner, hook, order_id=kept)) == 3
        # What was never delivered is given up in its sequence, and then swept as well.
        left = await database.fetch(
            "SELECT order_id, known, settled FROM hook_orders WHERE hook_id = ANY($1) ORDER BY hook_id, order_id",
            [silent, hook["hook_id"]],
        )
        assert [(str(r["order_id"]), r["known"], r["settled"]) for r in left if str(r["order_id"]) == order_id] == [
            (order_id, 3, 3)
        ]
        await cancelled(partner, order_id)
        await wait_for(lambda: receiver.versions(order_id) == [1, 2, 3, 4])
        await partner.delete(f"/v1/hooks/{hook['hook_id']}")
        await database.execute(
            "UPDATE hooks SET removed_at = now() - interval '1 day' WHERE hook_id = $1", hook["hook_id"]
        )
        await deliverer.sweep()
        for table in ("hooks", "hook_orders", "hook_deliveries"):
            assert await database.fetchval(f"SELECT count(*) FROM {table} WHERE hook_id = $1", hook["hook_id"]) == 0
    finally:
        await sender.close()
        await pool.close()


# -- whose, and where to ----------------------------------------------------------------------------------------------


async def test_anothers_hook_is_as_absent_as_none(stack: Stack, partner: Partner, receiver: Receiver) -> None:
    hook = await a_hook(partner, receiver)
    async with await a_partner(stack, "Stranger") as stranger:
        assert (await stranger.get("/v1/hooks")).json() == {"hooks": []}
        for hook_id in (hook["hook_id"], str(new_id()), "not-an-id"):
            path = f"/v1/hooks/{hook_id}"
            for method, suffix in (
                ("GET", ""),
                ("DELETE", ""),
                ("GET", "/deliveries"),
                ("POST", "/test"),
                ("POST", "/enable"),
            ):
                problem(await stranger.request(method, path + suffix), 404, "not-found")
    async with httpx.AsyncClient(base_url=stack.url("partner_api")) as nobody:
        for method, suffix in (
            ("GET", ""),
            ("POST", ""),
            ("DELETE", f"/{new_id()}"),
            ("GET", f"/{new_id()}/deliveries"),
        ):
            body = {"url": receiver.url} if method == "POST" else None
            problem(await nobody.request(method, f"/v1/hooks{suffix}", json=body), 401, "unauthorized")
    shown = (await partner.get(f"/v1/hooks/{hook['hook_id']}")).json()
    assert "secret" not in shown
    assert hook["secret"].startswith("whsec_")
    problem(await partner.post("/v1/hooks", json={"url": receiver.url}), 409, "hook-exists")
    problem(await partner.get(f"/v1/hooks/{hook['hook_id']}/deliveries?limit=0"), 400, "bad-parameter")


async def test_at_most_ten_hooks(partner: Partner, receiver: Receiver) -> None:
    urls = [f"{receiver.url}&{n}" for n in range(12)]
    answers = await asyncio.gather(*(partner.post("/v1/hooks", json={"url": url}) for url in urls))
    assert sorted(a.status_code for a in answers) == [201] * 10 + [409] * 2


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://93.184.215.14/", "hook-url"),
        ("http://10.0.0.1/", "hook-url"),
        ("ftp://127.0.0.1/", "hook-url"),
        ("https://user:pass@93.184.215.14/", "hook-url"),
        ("https://93.184.215.14/#x", "hook-url"),
        ("https://93.184.215.14:99999/", "hook-url"),
        ("https:///nowhere", "hook-url"),
        ("https://10.0.0.1/", "hook-target-refused"),
        ("https://172.16.3.4/", "hook-target-refused"),
        ("https://192.168.1.1/", "hook-target-refused"),
        ("https://100.64.0.1/", "hook-target-refused"),
        ("https://169.254.169.254/latest/meta-data/", "hook-target-refused"),
        ("https://0.0.0.0/", "hook-target-refused"),
        ("https://224.0.0.1/", "hook-target-refused"),
        ("https://255.255.255.255/", "hook-target-refused"),
        ("https://0x0a000001/", "hook-target-refused"),
        ("https://[::]/", "hook-target-refused"),
        ("https://[fe80::1]/", "hook-target-refused"),
        ("https://[fd00::1]/", "hook-target-refused"),
        ("https://[::ffff:10.0.0.1]/", "hook-target-refused"),
        ("https://[64:ff9b::a00:1]/", "hook-target-refused"),
        ("https://[2002:a00:1::]/", "hook-target-refused"),
        ("https://no-such-host.invalid/", "hook-host-unknown"),
    ],
)
async def test_where_web_hooks_may_not_go(partner: Partner, url: str, code: str) -> None:
    problem(await partner.post("/v1/hooks", json={"url": url}), 422, code)
