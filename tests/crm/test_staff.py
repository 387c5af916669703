"""Accounts of the staff on the running services: sign-in, tokens at both doors, roles, withdrawal."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey
from tests.builders import Member, a_member, service_token, wait_for

from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.kit.auth import Member as Account
from lostwax.kit.auth import StaffSigner
from lostwax.local.stack import Stack

SHIFT = timedelta(hours=12)


@pytest.fixture
async def admin(stack: Stack) -> AsyncIterator[Member]:
    client = await a_member(stack, Role.ADMINISTRATOR, "Abel")
    yield client
    await client.aclose()


@pytest.fixture
async def ida(stack: Stack) -> AsyncIterator[Member]:
    client = await a_member(stack, Role.OPERATOR, "Ida", door="mes")
    yield client
    await client.aclose()


@pytest.fixture
async def outside(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody, at the CRM's door."""
    async with httpx.AsyncClient(base_url=stack.url("crm"), timeout=20) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_badge_gives_a_token_for_a_shift(stack: Stack, admin: Member, outside: httpx.AsyncClient) -> None:
    answer = await outside.post("/v1/sign-in", json={"badge": admin.badge})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    signed_in = answer.json()
    assert signed_in["staff"]["name"] == "Abel"
    left = datetime.fromisoformat(signed_in["expires_at"]) - datetime.now(UTC)
    assert SHIFT - timedelta(minutes=1) < left <= SHIFT
    assert (await outside.get("/v1/staff", headers=bearer(signed_in["token"]))).status_code == 200
    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"])
    try:
        kept = await connection.fetch("SELECT * FROM badges JOIN staff USING (staff_id)")
        told = await connection.fetch("SELECT payload FROM outbox")
    finally:
        await connection.close()
    assert admin.badge not in str(kept) + str(told)


@pytest.mark.parametrize(
    ("body", "status"),
    [({"badge": "lwb_of_nobody"}, 401), ({"badge": ""}, 422), ({}, 422), ({"badge": "a", "b": 1}, 422)],
)
async def test_other_badges_give_none(outside: httpx.AsyncClient, body: dict[str, Any], status: int) -> None:
    assert (await outside.post("/v1/sign-in", json=body)).status_code == status


async def test_guessing_has_to_wait(stack: Stack, admin: Member, outside: httpx.AsyncClient) -> None:
    somewhere = {"X-Forwarded-For": str(new_id()), **bearer(service_token(stack, "mes", "crm"))}
    for _ in range(30):
        assert (await outside.post("/v1/sign-in", json={"badge": "guess"}, headers=somewhere)).status_code == 401
    stopped = await outside.post("/v1/sign-in", json={"badge": "guess"}, headers=somewhere)
    assert stopped.status_code == 429
    assert 1 <= int(stopped.headers["retry-after"]) <= 2
    # Only a service may say where somebody comes from; for anybody else it is the line's other end.
    faked = {**somewhere, **bearer("nonsense")}
    assert (await outside.post("/v1/sign-in", json={"badge": "guess"}, headers=faked)).status_code == 401
    assert (await outside.post("/v1/sign-in", json={"badge": admin.badge})).status_code == 200


def tampered(token: str) -> str:
    head, claims, signature = token.split(".")
    return f"{head}.{claims[:-2]}AA.{signature}"


async def test_only_the_crms_own_tokens_for_the_staff_are_let_in(stack: Stack, ida: Member) -> None:
    """At the MES as at the CRM, whatever else is signed, by whomever."""
    now = datetime.now(UTC)
    crm_key = stack.env("crm")["LOSTWAX_SERVICE_KEY"]
    someone = Account(new_id(), "Eve", Role.ADMINISTRATOR, 1)
    own = StaffSigner("crm", crm_key)
    foreign_key = json.dumps(OKPKey.generate_key("Ed25519", {"kid": "crm"}, private=True).as_dict(private=True))

    def signed(**claims: Any) -> str:
        whole = {"iss": "crm", "aud": "staff", "exp": int(time.time()) + 60, "sub": str(new_id()), "name": "Eve"}
        whole |= {"role": "operator", "ver": 1, **claims}
        key = OKPKey.import_key(json.loads(crm_key))
        return jwt.encode({"alg": "Ed25519", "kid": "crm"}, whole, key, algorithms=["Ed25519"])

    bad = {
        "no token at all": "nonsense",
        "its badge": ida.badge,
        "expired": own.token(someone, now - timedelta(hours=13), SHIFT)[0],
        "signed by a stranger": StaffSigner("crm", foreign_key).token(someone, now, SHIFT)[0],
        "signed by another service": StaffSigner("mes", stack.env("mes")["LOSTWAX_SERVICE_KEY"]).token(
            someone, now, SHIFT
        )[0],
        "another service in the CRM's name": StaffSigner("crm", stack.env("mes")["LOSTWAX_SERVICE_KEY"]).token(
            someone, now, SHIFT
        )[0],
        "a call between services": service_token(stack, "crm", "mes"),
        "for another audience": signed(aud="orders"),
        "no role": signed(role="owner"),
        "nobody": signed(sub="me"),
        "no version": signed(ver=None),
        "unsigned": ".".join([*tampered(ida.token).split(".")[:2], ""]),
        "changed": tampered(ida.token),
    }
    async with httpx.AsyncClient(timeout=20) as http:
        for why, token in bad.items():
            for door in ("mes/v1/me", "crm/v1/orders"):
                service, _, path = door.partition("/")
                answer = await http.get(f"{stack.url(service)}/{path}", headers=bearer(token))
                assert (answer.status_code, why) == (401, why), answer.text
        assert (await http.get(f"{stack.url('mes')}/v1/me", headers=bearer(ida.token))).status_code == 200
        # Well signed, and the CRM itself has never heard of them.
        unknown = bearer(own.token(someone, now, SHIFT)[0])
        assert (await http.get(f"{stack.url('crm')}/v1/orders", headers=unknown)).status_code == 401


async def test_a_withdrawn_member_is_refused_everywhere_within_a_second(
    stack: Stack, admin: Member, ida: Member
) -> None:
    assert (await ida.get("/v1/work")).status_code == 200
    answer = await admin.post(f"/v1/staff/{ida.staff_id}/withdraw")
    assert (answer.status_code, answer.json()["active"]) == (200, False)
    began = time.monotonic()

    async def refused() -> bool:
        return (await ida.get("/v1/work")).status_code == 401

    await wait_for(refused, 5)
    assert time.monotonic() - began < 5
    assert "withdrawn" in (await ida.get("/v1/work")).json()["detail"]
    for _ in range(3):  # and stays so: what the token says is older than what was told
        await asyncio.sleep(0.3)
        assert (await ida.get("/v1/me")).status_code == 401
    assert (await admin.post("/v1/sign-in", json={"badge": ida.badge})).status_code == 401
    assert (await admin.post(f"/v1/staff/{ida.staff_id}/withdraw")).status_code == 200
    again = await admin.post(f"/v1/staff/{ida.staff_id}/role", json={"role": "seller"})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/withdrawn")


async def test_a_lost_tablet_is_signed_out_everywhere_and_the_badge_stays_good(stack: Stack, admin: Member) -> None:
    async with await a_member(stack, Role.SUPERVISOR, "Rosa", door="mes") as rosa:
        assert (await rosa.get("/v1/in-hand")).status_code == 200

        async def refused() -> bool:
            return (await rosa.get("/v1/in-hand")).status_code == 401

        ended = await admin.post(f"/v1/staff/{rosa.staff_id}/end-sessions")
        assert (ended.status_code, ended.json()["active"]) == (200, True)
        await wait_for(refused)
        assert "signed out everywhere" in (await rosa.get("/v1/in-hand")).json()["detail"]
        fresh = (await admin.post("/v1/sign-in", json={"badge": rosa.badge})).json()["token"]
        assert (await rosa.get("/v1/in-hand", headers=bearer(fresh))).status_code == 200
        page, cookie = f"{stack.url('crm')}/sign-out-everywhere", {"Cookie": f"staff={fresh}"}
        async with httpx.AsyncClient(headers=cookie) as browser:
            assert (await browser.post(page, data={})).status_code == 422
            assert (await browser.post(page, data={"sure": "yes"})).status_code == 303
            assert (await browser.post(page, data={"sure": "yes"})).status_code in (303, 401)

        async def refused_too() -> bool:
            return (await rosa.get("/v1/in-hand", headers=bearer(fresh))).status_code == 401

        await wait_for(refused_too)


async def test_another_role_needs_another_token(stack: Stack, admin: Member, ida: Member) -> None:
    assert (await admin.post(f"/v1/staff/{ida.staff_id}/role", json={"role": "seller"})).status_code == 200

    async def refused() -> bool:
        return (await ida.get("/v1/work")).status_code == 401

    await wait_for(refused, 5)
    assert "You are a seller now" in (await ida.get("/v1/work")).json()["detail"]
    token = (await admin.post("/v1/sign-in", json={"badge": ida.badge})).json()["token"]
    assert (await ida.get("/v1/me", headers=bearer(token))).json()["role"] == "seller"
    assert (await ida.get("/v1/work", headers=bearer(token))).status_code == 403


async def test_administrators_keep_the_accounts(admin: Member) -> None:
    answer = await admin.post("/v1/staff", json={"name": "Nadja", "role": "seller"})
    assert answer.status_code == 201
    added = answer.json()
    assert added["badge"].startswith("lwb_")
    assert (await admin.post("/v1/sign-in", json={"badge": added["badge"]})).json()["staff"] == added["staff"]
    seen: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = (await admin.get("/v1/staff", params={"limit": 2, **after})).raise_for_status().json()
        seen += page["staff"]
        if page.get("next") is None:
            break
        after = {"after": page["next"]}
    ids = [member["staff_id"] for member in seen]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {str(admin.staff_id), added["staff"]["staff_id"]} <= set(ids)
    for body in ({"name": " ", "role": "seller"}, {"name": "A" * 101, "role": "seller"}, {"name": "A", "role": "king"}):
        assert (await admin.post("/v1/staff", json=body)).status_code == 422
    assert (await admin.post(f"/v1/staff/{new_id()}/withdraw")).status_code == 404


async def test_who_is_signed_in_goes_on_while_the_crm_is_away(stack: Stack, ida: Member) -> None:
    stack.stop("crm")
    try:
        assert (await ida.get("/v1/work")).status_code == 200
        async with httpx.AsyncClient(base_url=stack.url("mes"), timeout=20) as http:
            page = await http.post("/sign-in", data={"badge": ida.badge})
            assert page.status_code == 503
            assert "crm does not answer: nobody can sign in now" in page.text
            as_json = await http.post("/sign-in", data={"badge": ida.badge}, headers={"Accept": "application/json"})
            assert (as_json.status_code, as_json.json()["type"]) == (503, "/problems/crm-away")
            assert "retry-after" in as_json.headers
    finally:
        stack.start_one("crm")


def test_the_command_line_lets_in_and_out(stack: Stack) -> None:
    def staff(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "lostwax", "staff", *words, "--stack", stack.folder.name]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    added = staff("add", "Olga", "--role", "supervisor")
    assert added.returncode == 0, added.stderr
    role, staff_id, _, badge = added.stdout.split()
    assert role == "supervisor"
    answer = httpx.post(f"{stack.url('crm')}/v1/sign-in", json={"badge": badge}, timeout=20)
    assert answer.json()["staff"]["staff_id"] == staff_id
    assert f"{staff_id}  supervisor     Olga\n" in staff("list").stdout
    assert badge not in staff("list", "--all").stdout
    assert staff("withdraw", staff_id).returncode == 0
    assert staff_id not in staff("list").stdout
    assert httpx.post(f"{stack.url('crm')}/v1/sign-in", json={"badge": badge}, timeout=20).status_code == 401
    assert staff("add", "Olga", "--role", "queen").returncode == 2
    assert staff("withdraw", str(new_id())).returncode == 1
