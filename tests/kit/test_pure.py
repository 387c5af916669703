"""The parts of the kit that need no server: token bucket, coalescer, settings, keys, service tokens, HTTP edges."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OKPKey

from lostwax.kit import auth, tracing
from lostwax.kit.auth import BadCredentials, KeyCache, ServiceSigner, ServiceVerifier
from lostwax.kit.coalescer import Coalescer, Overloaded
from lostwax.kit.http import BODY_LIMIT, Operation, answer, build_app
from lostwax.kit.postgres import UNREACHABLE
from lostwax.kit.publishing import Publishing, TokenBucket
from lostwax.kit.service_calls import SERVICE_AUTH, for_services
from lostwax.kit.settings import SettingsError, read_settings

# -- token bucket -----------------------------------------------------------------------------------------------------


def test_a_bucket_starts_full_and_refills_at_its_rate() -> None:
    bucket = TokenBucket(Publishing(rate_per_s=10, burst=5), 1.0, now=100.0)
    assert bucket.available(100.0, 1000) == 5
    bucket.spend(5)
    assert bucket.available(100.0, 1000) == 0
    assert bucket.seconds_to_next() == pytest.approx(0.1)
    assert bucket.available(100.35, 1000) == 3
    assert bucket.available(200.0, 1000) == 5
    assert bucket.available(200.0, 2) == 2


def test_a_share_is_a_part_of_rate_and_burst_but_never_nothing() -> None:
    bucket = TokenBucket(Publishing(rate_per_s=10, burst=4), 0.5, now=0.0)
    assert bucket.available(0.0, 1000) == 2
    bucket.spend(2)
    assert bucket.available(1.0, 1000) == 2
    tiny = TokenBucket(Publishing(rate_per_s=1, burst=1), 0.25, now=0.0)
    assert tiny.available(0.0, 1000) == 1
    tiny.spend(1)
    assert tiny.available(3.9, 1000) == 0
    assert tiny.available(4.0, 1000) == 1


def test_unlimited_and_paused() -> None:
    assert TokenBucket(Publishing(), 1.0, now=0.0).available(0.0, 1000) == 1000
    paused = TokenBucket(Publishing(paused=True, rate_per_s=5), 1.0, now=0.0)
    assert paused.available(99.0, 1000) == 0
    assert paused.seconds_to_next() is None
    assert TokenBucket(Publishing(), 1.0, now=0.0).seconds_to_next() is None


@given(
    rate=st.floats(0.1, 10_000),
    burst=st.integers(1, 1000),
    waits=st.lists(st.floats(0, 10), max_size=40),
    most=st.integers(1, 500),
)
def test_never_more_than_burst_and_rate_allow_whatever_the_rhythm(
    rate: float, burst: int, waits: list[float], most: int
) -> None:
    bucket, now, sent = TokenBucket(Publishing(rate_per_s=rate, burst=burst), 1.0, now=0.0), 0.0, 0
    for wait in waits:
        now += wait
        count = bucket.available(now, most)
        assert 0 <= count <= most
        bucket.spend(count)
        sent += count
        assert sent <= burst + rate * now + 1e-6


# -- coalescer --------------------------------------------------------------------------------------------------------


class Flushes:
    """A flush that doubles numbers, remembers its batches, and fails on rows below zero."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, rows: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(rows))
        await self.gate.wait()
        if any(row < 0 for row in rows):
            raise ValueError(f"bad rows {[r for r in rows if r < 0]}")
        return [row * 2 for row in rows]


async def test_everybody_gets_the_answer_to_their_own_row() -> None:
    flushes = Flushes()
    coalescer = Coalescer(flushes, max_rows=7, max_waiting=1000)
    assert await asyncio.gather(*(coalescer.submit(n) for n in range(100))) == [n * 2 for n in range(100)]
    assert sorted(n for batch in flushes.batches for n in batch) == list(range(100))
    assert max(len(batch) for batch in flushes.batches) <= 7


async def test_the_next_flush_does_not_wait_for_a_finish_but_answers_do() -> None:
    flushed: list[int] = []
    gate = asyncio.Event()

    async def flush(rows: Sequence[int]) -> Sequence[int]:
        flushed.extend(rows)
        return rows

    async def finish(rows: Sequence[int], answers: Sequence[int]) -> None:
        assert rows == answers
        await gate.wait()
        if 1 in rows:
            raise RuntimeError("what is written is answered all the same")

    coalescer: Coalescer[int, int] = Coalescer(flush, finish=finish, flushers=1)
    first, second = (asyncio.create_task(coalescer.submit(n)) for n in (1, 2))
    await asyncio.sleep(0.01)
    third = asyncio.create_task(coalescer.submit(3))
    await asyncio.sleep(0.01)
    assert flushed == [1, 2, 3]
    assert not any(task.done() for task in (first, second, third))
    gate.set()
    assert await asyncio.gather(first, second, third) == [1, 2, 3]
    await coalescer.drain()


async def test_what_arrives_during_a_flush_goes_together_in_the_next() -> None:
    flushes = Flushes()
    flushes.gate.clear()
    coalescer = Coalescer(flushes, flushers=1)
    first = asyncio.create_task(coalescer.submit(0))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(coalescer.submit(n)) for n in range(1, 50)]
    await asyncio.sleep(0.01)
    flushes.gate.set()
    await asyncio.gather(first, *rest)
    assert flushes.batches == [[0], list(range(1, 50))]


async def test_a_bad_row_fails_alone() -> None:
    flushes = Flushes()
    flushes.gate.clear()
    coalescer = Coalescer(flushes, flushers=1)
    tasks = [asyncio.create_task(coalescer.submit(n)) for n in (0, 1, 2, -3, 4, -5)]
    await asyncio.sleep(0.01)
    flushes.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [a for a in answers if not isinstance(a, Exception)] == [0, 2, 4, 8]
    assert [str(a) for a in answers if isinstance(a, Exception)] == ["bad rows [-3]", "bad rows [-5]"]


async def test_an_overload_is_refused_at_once_and_the_others_are_served() -> None:
    flushes = Flushes()
    flushes.gate.clear()
    coalescer = Coalescer(flushes, max_rows=10, max_waiting=20, flushers=1)
    waiting = [asyncio.create_task(coalescer.submit(0))]
    await asyncio.sleep(0.01)
    waiting += [asyncio.create_task(coalescer.submit(n)) for n in range(1, 21)]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await coalescer.submit(99)
    flushes.gate.set()
    assert await asyncio.gather(*waiting) == [n * 2 for n in range(21)]
    assert await coalescer.submit(99) == 198


async def test_drain_waits_for_all_and_a_caller_who_left_hurts_nobody() -> None:
    flushes = Flushes()
    flushes.gate.clear()
    coalescer = Coalescer(flushes, max_rows=2, flushers=1)
    tasks = [asyncio.create_task(coalescer.submit(n)) for n in range(6)]
    await asyncio.sleep(0.01)
    tasks[1].cancel()
    draining = asyncio.create_task(coalescer.drain())
    await asyncio.sleep(0.01)
    assert not draining.done()
    flushes.gate.set()
    await asyncio.wait_for(draining, 5)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [a for a in answers if not isinstance(a, BaseException)] == [0, 4, 6, 8, 10]
    await asyncio.wait_for(coalescer.drain(), 1)


# -- settings ---------------------------------------------------------------------------------------------------------


class SomeSettings(msgspec.Struct, frozen=True):
    http_port: int
    database_url: str
    shard_urls: tuple[str, ...]
    log_level: str = "INFO"


def test_settings_come_from_the_environment() -> None:
    environ = {"LOSTWAX_HTTP_PORT": "81", "LOSTWAX_DATABASE_URL": "pg", "LOSTWAX_SHARD_URLS": "a,b", "HOME": "/"}
    assert read_settings(SomeSettings, environ) == SomeSettings(81, "pg", ("a", "b"))


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(SomeSettings, {"LOSTWAX_DATABASE_URL": "pg"})
    assert "LOSTWAX_HTTP_PORT" in str(caught.value)
    assert "LOSTWAX_SHARD_URLS" in str(caught.value)
    assert "LOSTWAX_DATABASE_URL" not in str(caught.value)
    assert "LOSTWAX_LOG_LEVEL" not in str(caught.value)


def test_a_setting_of_a_wrong_kind_is_named() -> None:
    environ = {"LOSTWAX_HTTP_PORT": "eighty", "LOSTWAX_DATABASE_URL": "pg", "LOSTWAX_SHARD_URLS": "a"}
    with pytest.raises(SettingsError, match="http_port"):
        read_settings(SomeSettings, environ)


# -- keys -------------------------------------------------------------------------------------------------------------


class KnownKeys:
    """Who is known, and how often it was asked."""

    def __init__(self, **holders: str) -> None:
        self.holders = {auth.digest_of_key(key): name for key, name in holders.items()}
        self.asked = 0

    async def __call__(self, digest: bytes) -> str | None:
        self.asked += 1
        return self.holders.get(digest)


async def test_a_key_is_looked_up_once_and_again_when_its_time_is_over() -> None:
    known = KnownKeys(k1="Ann")
    cache = KeyCache(known, ttl_s=0.2)
    assert [await cache.holder("k1") for _ in range(5)] == ["Ann"] * 5
    assert known.asked == 1
    known.holders.clear()
    assert await cache.holder("k1") == "Ann"
    await asyncio.sleep(0.25)
    with pytest.raises(BadCredentials):
        await cache.holder("k1")


async def test_an_unknown_key_is_never_remembered() -> None:
    known = KnownKeys()
    cache = KeyCache(known)
    for _ in range(3):
        with pytest.raises(BadCredentials):
            await cache.holder("k1")
    assert known.asked == 3
    known.holders[auth.digest_of_key("k1")] = "Ann"
    assert await cache.holder("k1") == "Ann"


async def test_the_cache_does_not_grow_without_limit() -> None:
    known = KnownKeys(**{f"k{n}": f"holder {n}" for n in range(50)})
    cache = KeyCache(known, most=10)
    for n in range(50):
        assert await cache.holder(f"k{n}") == f"holder {n}"
    assert await cache.holder("k49") == "holder 49"
    assert known.asked == 50
    await cache.holder("k0")
    assert known.asked == 51


def test_keys_differ_and_are_stored_only_as_digests() -> None:
    keys = {auth.new_api_key("lwp") for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("lwp_") and len(key) > 40 for key in keys)
    assert len({auth.digest_of_key(key) for key in keys}) == 100


# -- service tokens ---------------------------------------------------------------------------------------------------


def a_service_key(name: str) -> tuple[str, dict[str, Any]]:
    """A private JWK as JSON, and its public half."""
    private = dict(
        OKPKey.generate_key("Ed25519", {"kid": name, "use": "sig", "alg": "Ed25519"}, private=True).as_dict(
            private=True
        )
    )
    return json.dumps(private), {k: v for k, v in private.items() if k != "d"}


MES, MES_PUBLIC = a_service_key("mes")
ORDERS, ORDERS_PUBLIC = a_service_key("orders")
VERIFIER = ServiceVerifier("orders", json.dumps({"keys": [MES_PUBLIC, ORDERS_PUBLIC]}))


def signed(private: str, header: dict[str, Any], claims: dict[str, Any]) -> str:
    key = OKPKey.import_key(json.loads(private))
    return jwt.encode({"alg": "Ed25519", **header}, claims, key, algorithms=["Ed25519"])


def claims_of(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {"iss": "mes", "aud": "orders", "iat": now, "exp": now + 60, **changes}
    return {k: v for k, v in claims.items() if v is not None}


def test_a_call_between_services_is_known_by_its_signature() -> None:
    assert VERIFIER.caller(ServiceSigner("mes", MES).token("orders")) == "mes"
    assert VERIFIER.caller(signed(MES, {"kid": "mes"}, claims_of())) == "mes"


STRANGER, _ = a_service_key("mes")


@pytest.mark.parametrize(
    "token",
    [
        ServiceSigner("mes", MES).token("partner_api"),
        ServiceSigner("mes", STRANGER).token("orders"),
        ServiceSigner("mes", MES).token("orders")[:-8],
        ServiceSigner("mes", MES).token("orders") + "x",
        signed(MES, {"kid": "mes"}, claims_of(iss="orders")),
        signed(MES, {"kid": "orders"}, claims_of(iss="orders")),
        signed(MES, {"kid": "mes"}, claims_of(exp=int(time.time()) - 3600)),
        signed(MES, {"kid": "mes"}, claims_of(exp=None)),
        signed(MES, {"kid": "mes"}, claims_of(aud=None)),
        signed(MES, {"kid": "mes"}, claims_of(iss=None)),
        signed(MES, {"kid": "nobody"}, claims_of(iss="nobody")),
        "eyJhbGciOiJub25lIiwia2lkIjoibWVzIn0.eyJpc3MiOiJtZXMiLCJhdWQiOiJvcmRlcnMiLCJleHAiOjQxMDI0NDQ4MDB9.",
        "not.a.token",
        "",
        "ü",
    ],
    ids=[
        "other audience",
        "key of a stranger",
        "cut",
        "spoilt",
        "issuer is not the signer",
        "key named is not the signer's",
        "expired",
        "without end",
        "without audience",
        "without issuer",
        "unknown key",
        "alg none",
        "no token",
        "empty",
        "not ascii",
    ],
)
def test_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(BadCredentials):
        VERIFIER.caller(token)


def test_what_services_call_names_who_may_and_is_guarded() -> None:
    async def nothing(_: Any) -> Any: ...

    def operation(**changes: Any) -> Operation:
        return Operation("GET", "/v1/secrets", nothing, "", {}, **changes)

    for careless in (operation(auth=SERVICE_AUTH), operation(callers=("mes",))):
        with pytest.raises(ValueError, match="GET /v1/secrets names no service"):
            for_services([careless], VERIFIER)
    named = operation(auth=SERVICE_AUTH, callers=("mes",))
    with pytest.raises(ValueError, match="GET /v1/secrets is guarded by nobody"):
        build_app("test", [named], checks={})
    build_app("test", for_services([named], VERIFIER), checks={})


# -- HTTP -------------------------------------------------------------------------------------------------------------


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    count: int = 1


async def echo(_: Any, body: Note) -> Any:
    return answer({"text": body.text, "trace": tracing.current.get()})


async def fail(_: Any) -> Any:
    raise RuntimeError("secret detail")


async def away(_: Any) -> Any:
    raise UNREACHABLE[0]("connection refused")


async def overloaded(_: Any) -> Any:
    raise Overloaded


async def well() -> str | None:
    return None


async def unwell() -> str | None:
    return "no disk"


OPERATIONS = [
    Operation("POST", "/notes", echo, "Echo", {200: None}, body=Note),
    Operation("GET", "/fail", fail, "Fail", {200: None}),
    Operation("GET", "/away", away, "Away", {200: None}),
    Operation("GET", "/overloaded", overloaded, "Overloaded", {200: None}),
]


def http(**checks: Any) -> httpx.AsyncClient:
    app = build_app("test", OPERATIONS, checks=checks or {"disk": well})
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["type"], body["status"]) == (f"/problems/{code}", status)
    assert body["title"]
    return body


async def test_unknown_routes_and_methods_are_problems() -> None:
    async with http() as client:
        problem(await client.get("/nowhere"), 404, "not-found")
        wrong = await client.get("/notes")
        problem(wrong, 405, "method-not-allowed")
        assert wrong.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("content", "status", "code", "named"),
    [
        (b'{"text": "a", "colour": "red"}', 422, "unknown-field", "colour"),
        (b"{}", 422, "missing-field", "text"),
        (b'{"text": 5}', 422, "wrong-type", "text"),
        (b'{"text": "a", "count": "1"}', 422, "wrong-type", "count"),
        (b"[]", 422, "wrong-type", "object"),
        (b"{", 400, "not-json", ""),
        (b"", 400, "not-json", ""),
        (b"\xff\xfe", 400, "not-json", ""),
        (b'{"text": "\xff"}', 400, "not-json", ""),
        (b'{"text": "a\\u0000b"}', 422, "out-of-range", "U+0000"),
        (b'{"text": "\\ud800"}', 400, "not-json", ""),
    ],
)
async def test_a_body_that_does_not_fit_is_told_why(content: bytes, status: int, code: str, named: str) -> None:
    async with http() as client:
        response = await client.post("/notes", content=content, headers={"content-type": "application/json"})
    assert named in problem(response, status, code)["detail"]


async def test_a_backslash_before_u0000_is_just_text() -> None:
    async with http() as client:
        response = await client.post("/notes", content=b'{"text": "a\\\\u0000b"}')
    assert response.status_code == 200
    assert response.json()["text"] == "a\\u0000b"


async def test_an_oversize_body_is_413_whether_announced_or_not() -> None:
    fits = b'{"text": "' + b"x" * (BODY_LIMIT - 12) + b'"}'
    assert len(fits) == BODY_LIMIT

    async def in_pieces() -> Any:
        for _ in range(20):
            yield b" " * (BODY_LIMIT // 10)

    async with http() as client:
        assert (await client.post("/notes", content=fits)).status_code == 200
        problem(await client.post("/notes", content=fits + b" "), 413, "body-too-large")
        problem(await client.post("/notes", content=in_pieces()), 413, "body-too-large")


async def test_another_content_type_is_415() -> None:
    async with http() as client:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
            response = await client.post("/notes", content=b'{"text": "a"}', headers={"content-type": content_type})
            problem(response, 415, "not-json")
        for content_type in ("application/json", "Application/JSON; charset=utf-8"):
            response = await client.post("/notes", content=b'{"text": "a"}', headers={"content-type": content_type})
            assert response.status_code == 200


async def test_every_answer_carries_a_trace() -> None:
    incoming = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with http() as client:
        joined = await client.post("/notes", json={"text": "a"}, headers={"traceparent": incoming})
        assert joined.headers["traceparent"][:36] == incoming[:36]
        assert joined.headers["traceparent"][36:52] != "b" * 16
        # Whether it is sampled follows from its id; no caller decides that for us, and here nothing is.
        assert joined.headers["traceparent"][52:] == "-00"
        assert joined.json()["trace"] == joined.headers["traceparent"]
        for path in ("/nowhere", "/fail", "/health/live"):
            first, second = (await client.get(path)).headers["traceparent"], (await client.get(path)).headers
            assert tracing._VALID.match(first)
            assert first[3:35] != second["traceparent"][3:35]
        spoilt = await client.get("/health/live", headers={"traceparent": "00-xyz"})
        assert tracing._VALID.match(spoilt.headers["traceparent"])
    assert tracing.current.get() is None


async def test_what_nobody_foresaw_is_a_problem_that_gives_nothing_away() -> None:
    async with http() as client:
        response = await client.get("/fail")
        problem(response, 500, "internal")
        assert "secret" not in response.text
        down = await client.get("/away")
        problem(down, 503, "unavailable")
        assert int(down.headers["retry-after"]) >= 1
        full = await client.get("/overloaded")
        problem(full, 503, "overloaded")
        assert int(full.headers["retry-after"]) >= 1


async def test_health_tells_live_from_ready() -> None:
    async with http(disk=unwell, memory=well) as client:
        assert (await client.get("/health/live")).status_code == 200
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"] == {"disk": "no disk", "memory": "ok"}
    async with http() as client:
        assert (await client.get("/health/ready")).status_code == 200


async def test_openapi_lists_every_operation() -> None:
    async with http() as client:
        document = (await client.get("/openapi.json")).json()
    assert set(document["paths"]) == {"/notes", "/fail", "/away", "/overloaded"}
    assert {"413", "415", "422", "400", "503"} <= set(document["paths"]["/notes"]["post"]["responses"])
