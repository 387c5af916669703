"""Models by parts, resumed by whoever comes next; staging kept empty; what is told of one upload and not of another."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import httpx
import pytest
from tests.builders import (
    ACCOUNT,
    NOT_CLOSED,
    Partner,
    a_digest,
    a_model_file,
    a_partner,
    an_uploaded_model,
    order_at,
    order_body,
    put_file,
    register_model,
    submit,
    wait_for,
)
from tests.conftest import NewDatabase

from lostwax.channel import models, models_store
from lostwax.channel.models import Models, part_size, part_sizes, staging_key
from lostwax.channel.staging import Janitor
from lostwax.contracts.ids import new_id
from lostwax.contracts.models import MODEL_REMOVED, ModelStored
from lostwax.contracts.orders import PriceFailure
from lostwax.contracts.quotes import KEPT
from lostwax.kit.clock import utc_now
from lostwax.kit.objects import Bucket, S3Settings, StorageAway
from lostwax.kit.postgres import open_pool, session_lock
from lostwax.kit.problems import Problem
from lostwax.local.stack import Stack
from lostwax.partner_api.main import MIGRATIONS

MB = 1024 * 1024


@pytest.fixture(scope="module")
async def partner(stack: Stack) -> AsyncIterator[Partner]:
    async with await a_partner(stack) as client:
        yield client


def a_large_file(size: int) -> bytes:
    return Random(new_id().int).randbytes(size)


def staging_of(stack: Stack) -> Bucket:
    env = stack.env("partner_api")
    settings = S3Settings(*(env[f"LOSTWAX_S3_{name}"] for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")))
    return Bucket(settings, env["LOSTWAX_STAGING_BUCKET"])


def code_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    code: str = response.json()["type"].removeprefix("/problems/")
    return code


async def begin(partner: Partner, content: bytes, *, sha256: str | None = None) -> tuple[str, dict[str, Any]]:
    """Begin an upload by parts; its digest, and how it goes."""
    digest = sha256 or hashlib.sha256(content).hexdigest()
    body = {"name": "large.stl", "size_bytes": len(content), "sha256": digest, "multipart": True}
    response = await partner.post("/v1/models", json=body)
    assert response.status_code == 201, response.text
    assert response.json()["upload"] is None
    return digest, response.json()["multipart"]


async def send(content: bytes, going: dict[str, Any], *, only: int | None = None) -> None:
    """Upload what is missing, or just so many parts of it."""
    for link in going["links"][:only]:
        start = (link["number"] - 1) * going["part_size_bytes"]
        sent = await put_file(link["upload"], content[start : start + link["size_bytes"]])
        assert sent.status_code == 200, sent.text


async def test_an_upload_goes_on_in_another_process_after_uploader_and_service_were_killed(
    stack: Stack, partner: Partner, tmp_path: Path
) -> None:
    content = a_large_file(40_000_000)
    (tmp_path / "large.stl").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    command = [sys.executable, "-m", "lostwax", "order", str(tmp_path / "large.stl"), "--alloy", "brass"]
    environment = {"LOSTWAX_PARTNER_URL": stack.url("partner_api"), "LOSTWAX_API_KEY": partner.key, "PATH": "/usr/bin"}
    uploader = await asyncio.create_subprocess_exec(
        *command, "--finish", "as-cast", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    path = f"/v1/models/{digest}/upload"

    async def some_are_there() -> bool:
        response = await partner.get(path)
        return response.status_code == 200 and bool(response.json()["present"])

    await wait_for(some_are_there, 30)
    uploader.kill()
    await uploader.wait()
    await asyncio.to_thread(stack.kill, "partner_api")
    await asyncio.to_thread(stack.wait_ready, "partner_api")
    going = (await partner.get(path)).raise_for_status().json()
    assert going["present"]
    assert sorted(going["present"] + [link["number"] for link in going["links"]]) == [1, 2, 3, 4, 5]
    await send(content, going)
    for _ in range(2):
        completed = await partner.post(f"{path}/complete")
        assert (completed.status_code, completed.json()["state"]) == (200, "registered"), completed.text
    order_id = await submit(partner, digest)
    await order_at(partner, order_id, "PRICE_FAILED")  # it is no model, but it is stored
    assert (await partner.get(f"/v1/models/{digest}")).json()["state"] == "stored"
    file = await partner.get(f"/v1/models/{digest}/file")
    assert file.status_code == 302
    async with httpx.AsyncClient() as anybody:
        assert hashlib.sha256((await anybody.get(file.headers["location"])).content).hexdigest() == digest
    staging = staging_of(stack)

    async def cleared() -> bool:
        return await staging.size(staging_key(partner.client_id, digest)) is None

    await wait_for(cleared)
    await submit(partner, digest)  # as before, from the store


async def test_links_take_only_their_part_and_missing_ones_are_named(partner: Partner) -> None:
    content = a_large_file(9 * MB)
    digest, going = await begin(partner, content)
    path = f"/v1/models/{digest}/upload"
    assert (going["part_size_bytes"], going["parts"], going["present"]) == (8 * MB, 2, [])
    first, last = going["links"]
    assert last["size_bytes"] == MB
    short = await put_file(first["upload"] | {"headers": {}}, content[: 8 * MB - 1])
    assert short.status_code == 403
    swapped = first["upload"]["url"].replace("partNumber=1", "partNumber=2")
    assert (await put_file({"url": swapped, "headers": {}}, content[: 8 * MB])).status_code == 403
    refused = await partner.post(f"{path}/complete")
    assert code_of(refused, 409) == "parts-missing"
    assert refused.json()["missing"] == [1, 2]
    rest = content[8 * MB :]
    wanted = {"parts": [{"number": 2, "sha256": hashlib.sha256(rest).hexdigest()}]}
    (bound,) = (await partner.post(f"{path}/links", json=wanted)).raise_for_status().json()["links"]
    assert (await put_file(bound["upload"], bytes(MB))).status_code == 400
    assert (await put_file(bound["upload"], rest)).status_code == 200
    assert code_of(await partner.post(f"{path}/links", json={"parts": [{"number": 3}]}), 422) == "no-such-part"
    refused = await partner.post(f"{path}/complete")
    assert refused.json()["missing"] == [1]
    early = await partner.post("/v1/orders", json=order_body(digest), headers={"Idempotency-Key": "p"})
    assert code_of(early, 409) == "model-not-uploaded"
    _, again = await begin(partner, content)
    assert (again["present"], [link["number"] for link in again["links"]]) == ([2], [1])
    assert (await partner.delete(path)).status_code == 204
    assert code_of(await partner.delete(path), 409) == "no-multipart-upload"

    async def ended() -> bool:
        return (await put_file(first["upload"], content[: 8 * MB])).status_code == 404

    await wait_for(ended)
    _, anew = await begin(partner, content)
    assert anew["present"] == []


async def test_a_file_by_parts_that_is_another_is_refused_and_can_be_uploaded_again(partner: Partner) -> None:
    content = a_model_file()
    digest, going = await begin(partner, content)
    await send(bytes(len(content)), going)
    (await partner.post(f"/v1/models/{digest}/upload/complete")).raise_for_status()
    order_id = await submit(partner, digest)
    failed = await order_at(partner, order_id, "PRICE_FAILED")
    assert failed["failure"]["code"] == "model_digest_differs"
    assert code_of(await partner.post(f"/v1/models/{digest}/upload/complete"), 409) == "no-upload"
    _, going = await begin(partner, content)
    assert going["present"] == []
    await send(content, going)
    (await partner.post(f"/v1/models/{digest}/upload/complete")).raise_for_status()
    await order_at(partner, await submit(partner, digest), "PRICE_CALCULATED")
    (await partner.post(f"/v1/orders/{order_id}/resubmit", json={})).raise_for_status()
    await order_at(partner, order_id, "PRICE_CALCULATED")


async def test_large_files_go_by_parts_unasked_and_others_by_one_link(partner: Partner) -> None:
    for size, by_parts in ((32 * MB, False), (32 * MB + 1, True)):
        body = {"name": "a.stl", "size_bytes": size, "sha256": a_digest()}
        model = (await partner.post("/v1/models", json=body)).json()
        assert (model["upload"] is None, model["multipart"] is not None) == (by_parts, by_parts)
        if not by_parts:
            path = f"/v1/models/{body['sha256']}/upload"
            assert code_of(await partner.get(path), 409) == "no-multipart-upload"
            assert code_of(await partner.post(f"{path}/complete"), 409) == "no-multipart-upload"
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/complete")):
        assert code_of(await partner.request(method, f"/v1/models/{a_digest()}/upload{path}"), 404) == "not-found"


async def test_what_another_uploaded_is_not_already_there_for_you(stack: Stack, partner: Partner) -> None:
    content = a_model_file()
    digest = await an_uploaded_model(partner, content)
    await order_at(partner, await submit(partner, digest), "PRICE_CALCULATED")
    async with await a_partner(stack) as other:
        assert code_of(await other.get(f"/v1/models/{digest}/file"), 404) == "not-found"
        _, model = await register_model(other, content)
        assert model["upload"] is not None
        assert code_of(await other.get(f"/v1/models/{digest}/file"), 409) == "model-not-stored"
        assert code_of(await other.post("/v1/orders", json=order_body(digest), headers={"Idempotency-Key": "o"}), 409)
        assert (await put_file(model["upload"], content)).status_code == 200
        await order_at(other, await submit(other, digest), "PRICE_CALCULATED")


async def test_models_are_listed_page_by_page(stack: Stack) -> None:
    async with await a_partner(stack) as listing:
        digests = [(await register_model(listing, b"x", sha256=a_digest()))[0] for _ in range(5)]
        seen: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = (await listing.get("/v1/models", params={"limit": "2", **after})).raise_for_status().json()
            seen += [model["sha256"] for model in page["models"]]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert seen == digests[::-1]
        assert (await listing.get("/v1/models?state=stored")).json() == {"models": [], "next": None}
        assert code_of(await listing.get("/v1/models?state=lost"), 400) == "bad-parameter"


# -- with a clock of the test's own ------------------------------------------------------------------------------------


@pytest.fixture
async def own(stack: Stack, new_database: NewDatabase) -> AsyncIterator[Models]:
    pool = await open_pool(await new_database(MIGRATIONS), name="test", size=4)
    await pool.execute("INSERT INTO clients (client_id, name) VALUES ($1, 'Partner & Co')", ACCOUNT)
    yield Models(pool, staging_of(stack), largest_model_bytes=10_000_000)
    await pool.close()


async def state_of(own: Models, digest: str) -> str:
    async with own.pool.acquire() as connection:
        row = await models_store.model(connection, ACCOUNT, digest)
    assert row is not None
    return row.state


async def put_there(own: Models, digest: str, tmp_path: Path, content: bytes = b"x", upload: int = 1) -> str:
    (tmp_path / "file").write_bytes(content)
    key = staging_key(ACCOUNT, digest, upload)
    await own.staging.upload(key, tmp_path / "file")
    return key


async def test_uploads_that_are_never_ordered_expire_and_leave_nothing(own: Models, tmp_path: Path) -> None:
    janitor = Janitor(staging_days=7)
    single, parts, ordered = a_digest(), a_digest(), a_digest()
    await models.register_model(own, ACCOUNT, "a.stl", 1, single)
    key = await put_there(own, single, tmp_path)
    row, _ = await models.register_model(own, ACCOUNT, "b.stl", 1, parts, multipart=True)
    await models.register_model(own, ACCOUNT, "c.stl", 1, ordered)
    await put_there(own, ordered, tmp_path)
    await models.usable_model(own, ACCOUNT, ordered)
    assert await janitor.clear(own)
    assert await state_of(own, single) == "registered"
    own.now = lambda: utc_now() + timedelta(days=8)
    assert await janitor.clear(own)
    assert [await state_of(own, d) for d in (single, parts, ordered)] == ["expired", "expired", "uploaded"]
    assert await own.staging.size(key) is None
    assert row.multipart_id is not None
    with pytest.raises(Problem) as gone:
        await models.parts_upload(own, ACCOUNT, parts)
    assert gone.value.code == "no-upload"
    with pytest.raises(Problem) as expired:
        await models.usable_model(own, ACCOUNT, single)
    assert expired.value.code == "model-expired"
    assert await own.pool.fetchval("SELECT count(*) FROM staging_leftovers") == 0
    again, link = await models.register_model(own, ACCOUNT, "a.stl", 1, single)
    assert (again.state, again.upload, again.failure) == ("registered", 2, None)
    assert link is not None


async def test_quotes_are_forgotten_when_they_are_long_over(own: Models) -> None:
    janitor = Janitor(staging_days=7)
    await own.pool.execute(
        "INSERT INTO quotes (quote_id, client_id, idempotency_key, request_hash, requested_at, body)"
        " SELECT id, $2, id::text, '', now(), '{}' FROM unnest($1::uuid[]) AS given(id)",
        [new_id() for _ in range(250)],
        ACCOUNT,
    )
    own.now = lambda: utc_now() + KEPT - timedelta(minutes=1)
    assert await janitor.clear(own)
    assert await own.pool.fetchval("SELECT count(*) FROM quotes") == 250
    own.now = lambda: utc_now() + KEPT + timedelta(minutes=1)
    assert await janitor.clear(own)
    assert await own.pool.fetchval("SELECT count(*) FROM quotes") == 0


async def test_what_could_not_be_cleared_is_cleared_later_and_by_one_process(own: Models, tmp_path: Path) -> None:
    digest = a_digest()
    await models.register_model(own, ACCOUNT, "a.stl", 1, digest)
    key = await put_there(own, digest, tmp_path)
    await models.usable_model(own, ACCOUNT, digest)
    await models.take_stored_models(own, [ModelStored(digest, ACCOUNT, 1, upload=1)])
    staging, own.staging = own.staging, Bucket(S3Settings("http://127.0.0.1:9", "a", "b"), "staging-partner-api")
    janitor = Janitor(staging_days=7)
    with pytest.raises(StorageAway):
        await janitor.clear(own)
    with pytest.raises(StorageAway):
        await models.register_model(own, ACCOUNT, "b.stl", 1, a_digest(), multipart=True)
    own.staging = staging
    async with own.pool.acquire() as other, session_lock(other, models_store.JANITOR_LOCK) as got:
        assert got
        assert not await janitor.clear(own)
    assert await staging.size(key) == 1
    assert await janitor.clear(own)
    assert await staging.size(key) is None
    assert await state_of(own, digest) == "stored"


async def test_what_is_told_of_an_earlier_upload_does_not_touch_a_later_one(own: Models, tmp_path: Path) -> None:
    digest = a_digest()
    await models.register_model(own, ACCOUNT, "a.stl", 1, digest)
    await put_there(own, digest, tmp_path)
    assert (await models.usable_model(own, ACCOUNT, digest)).upload == 1
    refused = ModelStored(digest, ACCOUNT, 1, NOT_CLOSED, upload=1)
    await models.take_stored_models(own, [refused])
    await models.register_model(own, ACCOUNT, "a.stl", 1, digest)
    await put_there(own, digest, tmp_path, upload=2)
    assert (await models.usable_model(own, ACCOUNT, digest)).upload == 2
    await models.take_stored_models(own, [refused])
    assert await state_of(own, digest) == "uploaded"
    await models.take_stored_models(own, [ModelStored(digest, ACCOUNT, 1, upload=2)])
    assert await state_of(own, digest) == "stored"
    removed = PriceFailure(MODEL_REMOVED, "gone", "customer")
    await models.take_stored_models(own, [ModelStored(digest, ACCOUNT, 1, removed, upload=1)])
    assert await state_of(own, digest) == "stored"
    await models.take_stored_models(own, [ModelStored(digest, ACCOUNT, 1, removed, upload=2)])
    assert await state_of(own, digest) == "expired"


async def test_a_process_forgets_what_another_has_learnt_to_be_refused(
    own: Models, tmp_path: Path, new_database: NewDatabase
) -> None:
    dsn = await new_database(MIGRATIONS)
    pool = await open_pool(dsn, name="test", size=4)
    await pool.execute("INSERT INTO clients (client_id, name) VALUES ($1, 'Partner & Co')", ACCOUNT)
    here, there = (Models(pool, own.staging, largest_model_bytes=10) for _ in range(2))
    following = asyncio.create_task(there.follow_changes(dsn))
    try:
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%models_changed%' AND datname = $1"
        name = dsn.rpartition("/")[2]
        await wait_for(lambda: pool.fetchval(listening, name))
        digest = a_digest()
        await models.register_model(here, ACCOUNT, "a.stl", 1, digest)
        await put_there(here, digest, tmp_path)
        await models.usable_model(there, ACCOUNT, digest)
        await models.take_stored_models(here, [ModelStored(digest, ACCOUNT, 1, NOT_CLOSED, upload=1)])
        await wait_for(lambda: not there.usable)
        with pytest.raises(Problem) as refused:
            await models.usable_model(there, ACCOUNT, digest)
        assert refused.value.code == "model-refused"
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await pool.close()


async def test_an_upload_that_the_storage_lost_begins_anew_and_one_completed_unseen_is_seen(own: Models) -> None:
    digest = a_digest()
    row, _ = await models.register_model(own, ACCOUNT, "a.stl", 1, digest, multipart=True)
    assert row.multipart_id is not None
    key = staging_key(ACCOUNT, digest)
    await own.staging.abort_multipart(key, row.multipart_id)
    await own.staging.abort_multipart(key, row.multipart_id)
    with pytest.raises(Problem) as lost:
        await models.parts_upload(own, ACCOUNT, digest)
    assert lost.value.code == "upload-lost"
    row, going = await models.register_model(own, ACCOUNT, "a.stl", 1, digest, multipart=True)
    assert isinstance(going, models.PartsUpload)
    assert row.upload == 2
    assert row.multipart_id is not None
    link = going.links[0].upload
    assert (await put_file({"url": link.url, "headers": link.headers}, b"x")).status_code == 200
    key = staging_key(ACCOUNT, digest, 2)
    await own.staging.complete_multipart(key, row.multipart_id, await own.staging.parts(key, row.multipart_id))
    assert (await models.complete_upload(own, ACCOUNT, digest)).assembled
    assert (await models.usable_model(own, ACCOUNT, digest)).upload == 2


def test_parts_cover_a_file_exactly() -> None:
    for size in (1, 8 * MB, 8 * MB + 1, 300_000_000, 10_000_000_000):
        sizes = part_sizes(size, part_size(size))
        assert sum(sizes.values()) == size
        assert len(sizes) <= 1000
        assert list(sizes) == list(range(1, len(sizes) + 1))
        assert all(length >= 5 * MB for length in list(sizes.values())[:-1])


async def test_registering_at_the_same_time_is_one_upload(own: Models) -> None:
    digest = a_digest()
    begun = await asyncio.gather(
        *(models.register_model(own, ACCOUNT, "a.stl", 1, digest, multipart=True) for _ in range(8))
    )
    assert len({row.multipart_id for row, _ in begun}) == 1
    with pytest.raises(asyncpg.CheckViolationError):
        await own.pool.execute("UPDATE models SET state = 'lost' WHERE sha256 = $1", digest)
