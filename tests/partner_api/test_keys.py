"""Partners' keys through the running service: what each may do, how one follows another, how one ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from tests.builders import Partner, a_partner, problem, wait_for
from tests.conftest import NewDatabase
from typer.testing import CliRunner

from lostwax.cli import application
from lostwax.contracts.ids import new_id
from lostwax.kit.auth import KeyCache
from lostwax.kit.http import Operation
from lostwax.kit.postgres import Connection
from lostwax.local.stack import Stack
from lostwax.partner_api import keys_store
from lostwax.partner_api.callers import AUTH, Callers
from lostwax.partner_api.domain import (
    ALL_SCOPES,
    GrantRefused,
    Key,
    Scope,
    check_grant,
    end_of_old,
    leaves_a_manager,
    why_ended,
)
from lostwax.partner_api.main import MIGRATIONS
from lostwax.schemas.openapi import SERVICES

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
KEYED = [o for o in SERVICES["partner_api"][1]() if o.auth == AUTH]


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    yield connection
    await connection.close()


def with_key(partner: Partner, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=partner.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=20)


async def a_key(partner: httpx.AsyncClient, **wishes: Any) -> dict[str, Any]:
    response = await partner.post("/v1/keys", json={"name": "another", **wishes})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def listed(partner: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    response = await partner.get("/v1/keys")
    assert response.status_code == 200, response.text
    return {k["key_id"]: k for k in response.json()["keys"]}


@asynccontextmanager
async def a_narrow_partner(partner: Partner, *scopes: Scope) -> AsyncIterator[httpx.AsyncClient]:
    made = await a_key(partner, scopes=list(scopes))
    async with with_key(partner, made["key"]) as client:
        yield client


# -- scopes -----------------------------------------------------------------------------------------------------------


def test_every_operation_for_partners_has_a_scope_and_every_scope_is_needed() -> None:
    assert len(KEYED) > 15
    assert all(o.scope in ALL_SCOPES for o in KEYED), [o.path for o in KEYED if o.scope not in ALL_SCOPES]
    assert {o.scope for o in KEYED} == set(ALL_SCOPES)


def test_an_operation_without_a_scope_does_not_start() -> None:
    nothing: Any = None
    callers = Callers(nothing, nothing, None, now=lambda: NOW)
    with pytest.raises(ValueError, match="GET /v1/secrets needs a scope"):
        callers.guarded([Operation("GET", "/v1/secrets", nothing, "", {}, auth=AUTH)])


async def test_each_operation_lets_in_only_keys_of_its_scope(partner: Partner) -> None:
    clients = {}
    for scope in ALL_SCOPES:
        lacking = await a_key(partner, scopes=[s for s in ALL_SCOPES if s is not scope])
        only = await a_key(partner, scopes=[scope])
        clients[scope] = with_key(partner, lacking["key"]), with_key(partner, only["key"])
    try:
        for operation in KEYED:
            path = operation.path
            for name in ("order_id", "command_id", "hook_id", "key_id", "webhook_id", "sha256", "quote_id"):
                path = path.replace(f"{{{name}}}", str(new_id()))
            assert "{" not in path, path
            lacking_client, only_client = clients[Scope(str(operation.scope))]
            refused = await lacking_client.request(operation.method, path, content=b"not even JSON")
            problem(refused, 403, "scope-missing")
            assert refused.json()["scope"] == operation.scope
            assert operation.scope in refused.json()["detail"]
            assert operation.scope in refused.headers["www-authenticate"]
            let_in = await only_client.request(operation.method, path, json={})
            assert let_in.status_code not in (401, 403, 500), (operation.method, path, let_in.text)
    finally:
        for pair in clients.values():
            for client in pair:
                await client.aclose()


# -- making and listing -----------------------------------------------------------------------------------------------


async def test_a_new_key_works_and_is_never_shown_again(partner: Partner, database: Connection) -> None:
    end = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    made = await a_key(partner, name="for the shop", scopes=["orders:read"], expires_at=end.isoformat())
    assert made["key"].startswith("lwp_")
    async with with_key(partner, made["key"]) as client:
        assert (await client.get("/v1/orders")).status_code == 200
    response = await partner.get("/v1/keys")
    assert made["key"] not in response.text
    shown = await listed(partner)
    assert shown[made["key_id"]]["name"] == "for the shop"
    assert shown[made["key_id"]]["scopes"] == ["orders:read"]
    assert datetime.fromisoformat(shown[made["key_id"]]["expires_at"]) == end
    assert [k["calling"] for k in shown.values()] == [True, False]
    everything = str(await database.fetch("SELECT * FROM api_keys WHERE client_id = $1", partner.client_id))
    assert made["key"] not in everything


async def test_a_key_hands_on_no_more_than_it_has(partner: Partner) -> None:
    async with a_narrow_partner(partner, Scope.KEYS_MANAGE, Scope.ORDERS_READ) as narrow:
        refused = await narrow.post("/v1/keys", json={"name": "more", "scopes": ["orders:read", "orders:write"]})
        problem(refused, 403, "scope-missing")
        assert refused.json()["scope"] == "orders:write"
        assert (await a_key(narrow))["scopes"] == ["keys:manage", "orders:read"]
        # Nor by rotating a key that may do more: that would hand out the new one.
        (wide,) = [k for k in (await listed(narrow)).values() if len(k["scopes"]) == len(ALL_SCOPES)]
        problem(await narrow.post(f"/v1/keys/{wide['key_id']}/rotate", json={}), 403, "scope-missing")


async def test_a_key_makes_none_that_outlives_it(partner: Partner) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    made = await a_key(partner, expires_at=end.isoformat())
    async with with_key(partner, made["key"]) as brief:
        later = (end + timedelta(seconds=1)).isoformat()
        problem(await brief.post("/v1/keys", json={"name": "later", "expires_at": later}), 403, "key-outlives")
        assert (await a_key(brief))["expires_at"] == made["expires_at"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"name": ""}, 422),
        ({"name": "x", "scopes": []}, 422),
        ({"name": "x", "scopes": ["orders:eat"]}, 422),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, 422),
        ({"name": "x", "expires_at": "2099-01-01T00:00:00"}, 422),
        ({"name": "x", "key": "lwp_mine"}, 422),
    ],
)
async def test_a_wish_that_does_not_fit_makes_no_key(partner: Partner, body: dict[str, Any], status: int) -> None:
    response = await partner.post("/v1/keys", json=body)
    assert response.status_code == status, response.text
    assert len(await listed(partner)) == 1


async def test_there_are_not_ever_more_keys(partner: Partner, database: Connection) -> None:
    for number in range(49):
        await keys_store.add_key(
            database, new_id().bytes, partner.client_id, new_id(), str(number), ["orders:read"], None
        )
    problem(await partner.post("/v1/keys", json={"name": "one too many"}), 409, "too-many-keys")
    (some,) = [k for k in (await listed(partner)).values() if k["name"] == "7"]
    assert (await partner.delete(f"/v1/keys/{some['key_id']}")).status_code == 204
    await a_key(partner)


async def test_the_keys_of_others_are_as_absent_as_none(stack: Stack, partner: Partner) -> None:
    async with await a_partner(stack, "Stranger") as stranger:
        (key_id,) = await listed(stranger)
        problem(await partner.post(f"/v1/keys/{key_id}/rotate", json={}), 404, "not-found")
        problem(await partner.delete(f"/v1/keys/{key_id}"), 404, "not-found")
        problem(await partner.delete("/v1/keys/x"), 404, "not-found")
        assert list(await listed(stranger)) == [key_id]


# -- rotating and ending ----------------------------------------------------------------------------------------------


async def test_during_the_grace_both_keys_work_and_then_only_the_new_one(
    partner: Partner, database: Connection
) -> None:
    (old_id,) = await listed(partner)
    response = await partner.post(f"/v1/keys/{old_id}/rotate", json={"grace_s": 3600})
    assert response.status_code == 201, response.text
    rotated = response.json()
    ends_in = datetime.fromisoformat(rotated["old_ends_at"]) - datetime.now(UTC)
    assert timedelta(minutes=58) < ends_in <= timedelta(hours=1)
    async with with_key(partner, rotated["new"]["key"]) as renewed:
        assert (await listed(renewed))[old_id]["replaced_by"] == rotated["new"]["key_id"]
        assert rotated["new"]["scopes"] == list(ALL_SCOPES)
        assert (await partner.get("/v1/orders")).status_code == 200
        problem(await partner.post(f"/v1/keys/{old_id}/rotate", json={}), 409, "key-replaced")
        # What a key makes in its grace must not outlive it: else whoever found the old one would stay.
        problem(
            await partner.post("/v1/keys", json={"name": "mine", "expires_at": "2099-01-01T00:00:00Z"}),
            403,
            "key-outlives",
        )
        await database.execute("UPDATE api_keys SET expires_at = now() WHERE key_id = $1", UUID(old_id))

        async def ended() -> httpx.Response | None:
            answered = await partner.get("/v1/orders")
            return answered if answered.status_code == 401 else None

        answered = await wait_for(ended)
        assert answered.headers["www-authenticate"] == "Bearer"
        assert f"replaced by {rotated['new']['key_id']}" in answered.json()["detail"]
        assert (await renewed.get("/v1/orders")).status_code == 200
        problem(await renewed.post(f"/v1/keys/{old_id}/rotate", json={}), 409, "key-ended")


async def test_without_grace_the_old_key_ends_at_once(partner: Partner) -> None:
    (old_id,) = await listed(partner)
    assert (await partner.post(f"/v1/keys/{old_id}/rotate", json={"grace_s": 604_801})).status_code == 422
    assert (await partner.post(f"/v1/keys/{old_id}/rotate", json={"grace_s": 0})).status_code == 201

    async def ended() -> bool:
        return (await partner.get("/v1/orders")).status_code == 401

    await wait_for(ended, 5)


async def test_a_withdrawn_key_stops_and_says_so(partner: Partner) -> None:
    made = await a_key(partner)
    async with with_key(partner, made["key"]) as leaving:
        assert (await leaving.get("/v1/orders")).status_code == 200
        for _ in range(2):
            assert (await partner.delete(f"/v1/keys/{made['key_id']}")).status_code == 204

        async def ended() -> httpx.Response | None:
            answered = await leaving.get("/v1/orders")
            return answered if answered.status_code == 401 else None

        # Sooner than the ten seconds for which keys are remembered: the processes are told.
        answered = await wait_for(ended, 5)
        assert "this key was withdrawn at" in answered.json()["detail"]
    assert (await listed(partner))[made["key_id"]]["withdrawn_at"]


async def test_the_last_key_that_manages_keys_stays(partner: Partner) -> None:
    (first,) = await listed(partner)
    reading = await a_key(partner, scopes=["orders:read"])
    problem(await partner.delete(f"/v1/keys/{first}"), 409, "last-managing-key")
    assert (await partner.delete(f"/v1/keys/{reading['key_id']}")).status_code == 204
    rotated = (await partner.post(f"/v1/keys/{first}/rotate", json={})).json()["new"]
    # The old one still works, but it is about to end, so it is not what is left.
    problem(await partner.delete(f"/v1/keys/{rotated['key_id']}"), 409, "last-managing-key")
    assert (await partner.delete(f"/v1/keys/{first}")).status_code == 204


async def test_of_two_who_rotate_or_withdraw_at_once_one_comes_second(partner: Partner) -> None:
    (first,) = await listed(partner)
    both = await asyncio.gather(*(partner.post(f"/v1/keys/{first}/rotate", json={}) for _ in range(2)))
    assert sorted(r.status_code for r in both) == [201, 409]
    new = next(r.json()["new"] for r in both if r.status_code == 201)
    second = await a_key(partner, expires_at=(await listed(partner))[first]["expires_at"])
    async with with_key(partner, new["key"]) as one, with_key(partner, second["key"]) as other:
        ends = await asyncio.gather(
            one.delete(f"/v1/keys/{new['key_id']}"), other.delete(f"/v1/keys/{second['key_id']}")
        )
        # Each would leave the other; together they would leave nobody who manages keys.
        assert sorted(r.status_code for r in ends) == [204, 409], [r.text for r in ends]


async def test_made_up_keys_are_refused_and_do_not_keep_partners_out(stack: Stack, partner: Partner) -> None:
    async with httpx.AsyncClient(base_url=stack.url("partner_api"), timeout=20) as nobody:
        flood = [nobody.get("/v1/orders", headers={"Authorization": f"Bearer lwp_{new_id().hex}"}) for _ in range(60)]
        *refused, welcome = await asyncio.gather(*flood, partner.get("/v1/orders"))
    assert {r.status_code for r in refused} == {401}
    assert welcome.status_code == 200


async def test_when_a_key_was_used_is_written_down_now_and_then(partner: Partner, database: Connection) -> None:
    made = await a_key(partner)
    assert (await listed(partner))[made["key_id"]]["last_used_at"] is None
    async with with_key(partner, made["key"]) as client:
        await client.get("/v1/orders")

        async def used() -> Any:
            return (await listed(partner))[made["key_id"]]["last_used_at"]

        first = await wait_for(used)
        assert abs(datetime.now(UTC) - datetime.fromisoformat(first)) < timedelta(minutes=1)
    key_id = UUID(made["key_id"])
    await keys_store.note_used(database, [key_id])
    assert await used() == first
    await database.execute("UPDATE api_keys SET last_used_at = now() - interval '2 minutes' WHERE key_id = $1", key_id)
    await keys_store.note_used(database, [key_id])
    assert await used() > first


async def test_a_suspended_client_is_let_in_no_more_until_that_is_lifted(
    partner: Partner, database: Connection
) -> None:
    assert (await partner.get("/v1/orders")).status_code == 200
    await keys_store.suspend_client(database, partner.client_id, suspended=True)

    async def answers(status: int) -> httpx.Response:
        async def so() -> httpx.Response | None:
            answered = await partner.get("/v1/orders")
            return answered if answered.status_code == status else None

        answered: httpx.Response = await wait_for(so, 5)
        return answered

    problem(await answers(403), 403, "client-suspended")
    await keys_store.suspend_client(database, partner.client_id, suspended=False)
    await answers(200)


# -- what is decided --------------------------------------------------------------------------------------------------


def a_held_key(**changes: Any) -> Key:
    whole = Key(key_id=new_id(), name="k", scopes=tuple(ALL_SCOPES), created_at=NOW)
    return msgspec.structs.replace(whole, **changes)


def test_why_a_key_ended() -> None:
    second = timedelta(seconds=1)
    assert why_ended(a_held_key(), NOW) is None
    assert why_ended(a_held_key(expires_at=NOW + second), NOW) is None
    assert "expired" in str(why_ended(a_held_key(expires_at=NOW), NOW))
    assert "replaced" in str(why_ended(a_held_key(expires_at=NOW, replaced_by=new_id()), NOW))
    assert why_ended(a_held_key(expires_at=NOW + second, replaced_by=new_id()), NOW) is None
    assert "withdrawn" in str(why_ended(a_held_key(withdrawn_at=NOW, expires_at=NOW), NOW))


def test_what_may_be_handed_on() -> None:
    giver = a_held_key(scopes=("keys:manage", "orders:read"), expires_at=NOW + timedelta(days=1))
    check_grant(giver, ["orders:read"], NOW)
    with pytest.raises(GrantRefused, match="models:read"):
        check_grant(giver, ["orders:read", "models:read"], NOW)
    for end in (None, NOW + timedelta(days=2)):
        with pytest.raises(GrantRefused, match="outlives"):
            check_grant(giver, ["orders:read"], end)
    check_grant(a_held_key(), ALL_SCOPES, None)


def test_a_replaced_key_ends_no_later_than_it_would_have() -> None:
    day = timedelta(days=1)
    assert end_of_old(a_held_key(), NOW, day) == NOW + day
    assert end_of_old(a_held_key(expires_at=NOW + day / 2), NOW, day) == NOW + day / 2


def test_who_is_left_to_manage_keys() -> None:
    one, reading = a_held_key(), a_held_key(scopes=("orders:read",))
    others = [a_held_key(withdrawn_at=NOW), a_held_key(expires_at=NOW), a_held_key(replaced_by=new_id()), reading]
    assert not leaves_a_manager([one, *others], one.key_id, NOW)
    assert leaves_a_manager([one, *others], reading.key_id, NOW)


# -- being remembered -------------------------------------------------------------------------------------------------


async def test_a_key_is_looked_up_once_for_many_and_what_is_forgotten_meanwhile_is_not_kept() -> None:
    looked_up, go_on = [], asyncio.Event()

    async def look_up(digest: bytes) -> str:
        looked_up.append(digest)
        await go_on.wait()
        return f"holder {len(looked_up)}"

    cache: KeyCache[str] = KeyCache(look_up)
    waiting = [asyncio.create_task(cache.holder("k")) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(looked_up) == 1
    cache.forget(looked_up[0])
    go_on.set()
    assert set(await asyncio.gather(*waiting)) == {"holder 1"}
    assert await cache.holder("k") == await cache.holder("k") == "holder 2"
    cache.forget()
    assert await cache.holder("k") == "holder 3"


# -- keys of before ---------------------------------------------------------------------------------------------------


async def test_keys_of_before_may_do_everything_and_get_an_id_of_their_time(new_database: NewDatabase) -> None:
    dsn = await new_database(None)
    connection = await asyncpg.connect(dsn)
    try:
        before = sorted(p for p in MIGRATIONS.glob("*.sql") if p.name < "0007")
        for path in before:
            await connection.execute(path.read_text())
        client_id = new_id()
        await connection.execute("INSERT INTO clients (client_id, name) VALUES ($1, 'Old')", client_id)
        for at in ("2026-01-02T03:04:05Z", "2026-02-03T04:05:06Z"):
            await connection.execute(
                "INSERT INTO api_keys (digest, client_id, created_at) VALUES ($1, $2, $3)",
                new_id().bytes,
                client_id,
                datetime.fromisoformat(at),
            )
        await connection.execute((MIGRATIONS / "0007_keys.sql").read_text())
        found = await keys_store.keys_of(connection, client_id)
        assert [k.created_at.month for k in found] == [1, 2]
        assert all(k.scopes == tuple(ALL_SCOPES) and k.key_id.version == 7 for k in found)
        milliseconds = [k.key_id.int >> 80 for k in found]
        assert milliseconds == [int(k.created_at.timestamp() * 1000) for k in found]
    finally:
        await connection.close()


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_workshop_manages_partners_by_the_command_line(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSTWAX_DATABASE_URL", stack.env("partner_api")["LOSTWAX_DATABASE_URL"])

    def say(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(application(), ["partner", *words])
        assert result.exit_code == code, result.output
        return result.output

    name = f"Atelier {new_id()}"
    client_id, key = [line.split()[-1] for line in say("add", name).splitlines()]

    def status(with_: str) -> int:
        return httpx.get(
            f"{stack.url('partner_api')}/v1/orders", headers={"Authorization": f"Bearer {with_}"}
        ).status_code

    assert status(key) == 200
    assert f"{client_id}  {name}  the usual limit" in say("list")
    assert say("limit", name, "--rate", "5") == "5/s, 20 at once\n"
    assert say("limit", client_id, "--unlimited") == "no limit\n"
    assert say("limit", name, "--default") == "the usual limit\n"
    say("limit", name, "--burst", "3", code=2)
    first = say("key", "list", name).split()[0]
    say("key", "withdraw", first, code=1)
    second, narrow = [line.split()[-1] for line in say("key", "add", name, "--scope", "orders:read").splitlines()]
    assert status(narrow) == 200
    new, renewed = [line.split()[-1] for line in say("key", "rotate", first, "--grace", "1").splitlines()]
    assert status(key) == status(renewed) == 200
    say("key", "withdraw", second)
    shown = say("key", "list", name)
    assert all(key_id in shown for key_id in (first, second, new))
    assert "withdrawn" in shown
    say("suspend", name)
    assert "suspended" in next(line for line in say("list").splitlines() if client_id in line)
    say("suspend", name, "--lift")
    say("key", "add", name, "--scope", "orders:eat", code=2)
    say("key", "list", "nobody of this name", code=1)
    say("key", "rotate", str(new_id()), code=1)
