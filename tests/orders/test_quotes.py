"""Quotes: what may happen to one, as laws; then on real shards, with the orders that are placed by them."""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import (
    ACCOUNT,
    NOON,
    NOT_CLOSED,
    PARTNER,
    a_digest,
    a_price,
    a_quote_request,
    a_request,
    a_specification,
)
from tests.conftest import NewDatabase

import lostwax.orders
from lostwax.contracts import catalogue
from lostwax.contracts.ids import bucket_of, bucket_of_digest, new_id
from lostwax.contracts.models import ModelNeeded
from lostwax.contracts.orders import AcceptedQuote, ModelReady, ModelRef, Order, OrderRequested, Status
from lostwax.contracts.pricing import PriceResult
from lostwax.contracts.quotes import PriceQuote, QuoteChanged, QuoteRequested, QuoteState
from lostwax.kit.objects import Bucket, S3Settings
from lostwax.kit.postgres import open_pool
from lostwax.kit.shards import Shard, ShardMap, assign_first_buckets, first_owner
from lostwax.local.stack import Stack
from lostwax.orders import changes, domain, handlers, price_jobs, quote_domain, quote_handlers, quotes_store, store
from lostwax.orders.changes import Orders

MIGRATIONS = Path(lostwax.orders.__file__).parent / "migrations"


# -- the laws ---------------------------------------------------------------------------------------------------------


def answers_to(quote: PriceQuote, failing: frozenset[int] = frozenset()) -> dict[UUID, PriceResult]:
    return {
        job: a_price(job, quote.quote_id, f"{100 + number}.00", NOT_CLOSED if number in failing else None)
        for job, number in quote_domain.open_jobs(quote).items()
    }


@given(st.integers(1, 24), st.randoms(use_true_random=False), st.data())
def test_however_its_answers_come_a_quote_ends_the_same(options: int, random: Random, data: st.DataObject) -> None:
    """In any order, in any batches, repeated: versions grow by one, an answered option never changes again, and the
    end is priced exactly when one option has a price."""
    failing = frozenset(data.draw(st.sets(st.integers(1, options))))
    quote = quote_domain.begin(a_quote_request(*[a_specification(quantity=n + 1) for n in range(options)]), NOON)
    answers = list(answers_to(quote, failing).items())
    coming = [*answers, *random.sample(answers, len(answers))]
    random.shuffle(coming)
    while coming:
        batch = dict(coming[: random.randint(1, 5)])
        coming = coming[len(batch) :]
        after = quote_domain.take_prices(quote, batch, 14, NOON)
        if after is None:
            assert not set(batch) & set(quote_domain.open_jobs(quote))
            continue
        assert after.version == quote.version + 1
        for before, now in zip(quote.options, after.options, strict=True):
            assert now == before or (before.price is None and before.failure is None)
        quote = after
        if quote_domain.open_jobs(quote):
            assert (quote.state, quote.expires_at) == (QuoteState.REQUESTED, None)
    for _ in range(3):
        for job, result in answers:  # late duplicates, and duplicates that were dropped from a batch above
            quote = quote_domain.take_prices(quote, {job: result}, 14, NOON) or quote
    assert not quote_domain.open_jobs(quote)
    assert [o.failure is not None for o in quote.options] == [n in failing for n in range(1, options + 1)]
    assert quote.state is (QuoteState.FAILED if len(failing) == options else QuoteState.PRICED)
    assert quote.expires_at == (None if quote.state is QuoteState.FAILED else NOON + timedelta(days=14))


def test_a_price_of_another_job_counts_nothing() -> None:
    quote = quote_domain.begin(a_quote_request(), NOON)
    assert quote_domain.take_prices(quote, {new_id(): a_price(new_id(), quote.quote_id)}, 14, NOON) is None


def priced() -> PriceQuote:
    quote = quote_domain.begin(a_quote_request(), NOON)
    after = quote_domain.take_prices(quote, answers_to(quote), 14, NOON)
    assert after is not None
    return after


def by_quote(quote: PriceQuote, option: int = 1, **changes: Any) -> OrderRequested:
    """A request for an order placed by this quote as it stands."""
    chosen = quote.options[option - 1]
    amount = Decimal("0") if chosen.price is None else chosen.price.amount
    return a_request(
        **{
            "specification": chosen.specification,
            "accepted": AcceptedQuote(quote.quote_id, option, amount),
            **changes,
        }
    )


def test_an_acceptance_holds_for_its_account_time_amount_and_piece_alone() -> None:
    quote = priced()
    request = by_quote(quote, 2)
    accepted, made = request.accepted, request.specification
    assert accepted is not None
    price = quote_domain.accepted_price(quote, request)
    assert price is not None
    assert (price.quote_id, price.amount) == (quote.quote_id, Decimal("102.00"))
    other_name = msgspec.structs.replace(made, model=msgspec.structs.replace(made.model, name="copy.stl"))
    for fine in (
        {"requested_at": price.expires_at},
        {"specification": msgspec.structs.replace(made, deadline=NOON.date())},
        {"specification": other_name},
    ):
        assert quote_domain.accepted_price(quote, msgspec.structs.replace(request, **fine)) == price
    another_model = msgspec.structs.replace(made.model, sha256=a_digest())
    wrong: list[Mapping[str, Any]] = [
        {"account": new_id()},
        {"requested_at": price.expires_at + timedelta(seconds=1)},
        {"accepted": msgspec.structs.replace(accepted, amount=Decimal("101.99"))},
        {"accepted": msgspec.structs.replace(accepted, option=1)},
        {"accepted": msgspec.structs.replace(accepted, option=3)},
        {"accepted": msgspec.structs.replace(accepted, quote_id=new_id())},
        {"accepted": None},
        *[
            {"specification": msgspec.structs.replace(made, **{name: value})}
            for name, value in {
                "alloy": "brass",
                "finish": "satin",
                "quantity": 2,
                "ring_size": 55.0,
                "scale": 1.5,
                "engraving": "x",
                "model": another_model,
            }.items()
        ],
    ]
    for change in wrong:
        assert quote_domain.accepted_price(quote, msgspec.structs.replace(request, **change)) is None, change
    assert quote_domain.accepted_price(None, request) is None


@given(st.decimals(1, 10_000, places=2), st.decimals(1, 10_000, places=2))
def test_whoever_accepted_an_amount_never_pays_more_without_being_asked(accepted: Decimal, anew: Decimal) -> None:
    request = by_quote(priced(), accepted=AcceptedQuote(new_id(), 1, accepted))
    order = domain.submit(request, NOON)
    job = domain.price_job(order)
    last = domain.take_price(order, job, a_price(job, order.order_id, str(anew)), 14, NOON)[-1]
    assert (last.status is Status.MANUFACTURING_APPROVED) == (anew <= accepted)


# -- on shards --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def orders(stack: Stack, new_database: NewDatabase) -> AsyncIterator[Orders]:
    """The use cases on two fresh shards that nothing else works on; the clock stands at NOON."""
    shards = []
    for number in range(2):
        dsn = await new_database(MIGRATIONS)
        pool = await open_pool(dsn, name="test", size=5)
        async with pool.acquire() as connection:
            await assign_first_buckets(connection, number, 2)
        shards.append(Shard(number, dsn, pool))
    env = stack.env("orders")
    bucket = Bucket(S3Settings(*(env[f"LOSTWAX_S3_{n}"] for n in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY"))), "models")
    yield Orders(
        ShardMap(shards),
        models=bucket,
        staging=lambda name: bucket,
        tariff=changes.load_tariff("2026-11"),
        now=lambda: NOON,
        largest_model_bytes=1_000_000,
    )
    for shard in shards:
        await shard.pool.close()


def an_id(shard: int) -> UUID:
    return next(i for i in iter(new_id, None) if first_owner(bucket_of(i), 2) == shard)


async def a_stored_model(orders: Orders) -> ModelRef:
    model = ModelRef(sha256=a_digest(), size_bytes=84, name="ring.stl")
    await orders.shards.of(bucket_of_digest(model.sha256)).pool.execute(
        "INSERT INTO models (sha256, size_bytes) VALUES ($1, 84)", model.sha256
    )
    return model


async def stored(orders: Orders, quote_id: UUID) -> PriceQuote:
    async with orders.shards.of(bucket_of(quote_id)).pool.acquire() as connection:
        return (await quotes_store.read(connection, [quote_id]))[quote_id]


async def versions_told(orders: Orders, quote_id: UUID) -> list[int]:
    rows = await orders.shards.of(bucket_of(quote_id)).pool.fetch(
        "SELECT payload FROM outbox WHERE topic = 'quotes.changes' AND key = $1 ORDER BY id", str(quote_id)
    )
    told: list[QuoteChanged] = [catalogue.decode("quotes.quote_changed.v1", r["payload"]) for r in rows]
    return [t.quote.version for t in told]


async def jobs_of(orders: Orders, subject_id: UUID) -> list[price_jobs.PriceJob]:
    async with orders.shards.of(bucket_of(subject_id)).pool.acquire() as connection:
        return await price_jobs.waiting_for(connection, [subject_id])


async def a_priced_quote(orders: Orders, shard: int = 0) -> PriceQuote:
    one = a_specification(model=await a_stored_model(orders))
    request = a_quote_request(one, msgspec.structs.replace(one, alloy="brass"), quote_id=an_id(shard))
    await quote_handlers.create_quotes(orders, orders.shards.shards[shard], [request, request])
    await quote_handlers.create_quotes(orders, orders.shards.shards[shard], [request])
    jobs = await jobs_of(orders, request.quote_id)
    assert [j.specification for j in jobs] == list(request.options)
    for job in jobs:
        for _ in range(2):
            await handlers.take_prices(
                orders, orders.shards.shards[shard], [a_price(job.job_id, job.subject_id, "80.00")]
            )
    return await stored(orders, request.quote_id)


async def last_and_history(orders: Orders, order_id: UUID) -> tuple[Order, list[Status]]:
    async with orders.shards.of(bucket_of(order_id)).pool.acquire() as connection:
        order = await store.order(connection, order_id)
        steps = await store.history(connection, order_id, 0, 10)
    assert order is not None
    assert steps[-1] == order
    return order, [s.status for s in steps]


async def test_a_quote_is_priced_option_by_option_and_told_of(orders: Orders) -> None:
    quote = await a_priced_quote(orders)
    assert (quote.state, quote.version, quote.expires_at) == (QuoteState.PRICED, 3, NOON + timedelta(days=14))
    assert await versions_told(orders, quote.quote_id) == [1, 2, 3]
    assert await jobs_of(orders, quote.quote_id) == []


@pytest.mark.parametrize("failure", [None, NOT_CLOSED])
async def test_a_quote_waits_for_its_model(orders: Orders, failure: Any) -> None:
    shard, request = orders.shards.shards[1], a_quote_request(quote_id=an_id(1))
    sha256 = request.options[0].model.sha256
    await quote_handlers.create_quotes(orders, shard, [request])
    assert await jobs_of(orders, request.quote_id) == []
    payload = await shard.pool.fetchval("SELECT payload FROM outbox WHERE key = $1", sha256)
    needed = catalogue.decode("models.model_needed.v1", payload)
    assert needed == ModelNeeded(sha256, request.quote_id, ACCOUNT, until=needed.until)
    assert needed.until > NOON + timedelta(days=orders.tariff.held_for_days)
    ready = ModelReady(request.quote_id, sha256, failure)
    await handlers.take_models(orders, shard, [ModelReady(request.quote_id, a_digest()), ready, ready])
    await handlers.take_models(orders, shard, [ready])
    quote = await stored(orders, request.quote_id)
    if failure is None:
        assert (quote.state, len(await jobs_of(orders, request.quote_id))) == (QuoteState.REQUESTED, 2)
    else:
        assert (quote.state, quote.version) == (QuoteState.FAILED, 2)
        assert {o.failure for o in quote.options} == {failure}


@pytest.mark.parametrize("quote_on", [0, 1])
async def test_orders_by_a_quote_are_approved_at_its_price_without_a_new_one(orders: Orders, quote_on: int) -> None:
    """Also when it lives on another shard; two orders by one quote are both fine."""
    quote = await a_priced_quote(orders, quote_on)
    for _ in range(2):
        request = by_quote(quote, 2, order_id=an_id(0))
        await handlers.create_orders(orders, orders.shards.shards[0], [request, request])
        await handlers.create_orders(orders, orders.shards.shards[0], [request])
        order, steps = await last_and_history(orders, request.order_id)
        assert steps == [Status.SUBMITTED, Status.PRICE_CALCULATED, Status.MANUFACTURING_APPROVED]
        assert order.quote == quote.options[1].price
        assert order.transition.actor.account == PARTNER.account
        assert (order.approved_at, order.approve_up_to) == (NOON, None)
        assert await jobs_of(orders, request.order_id) == []


@pytest.mark.parametrize("what", ["expired", "unknown", "amount", "away"])
async def test_an_order_whose_quote_does_not_hold_is_priced_anew_up_to_what_was_accepted(
    orders: Orders, what: str
) -> None:
    quote = await a_priced_quote(orders)
    request = by_quote(quote, order_id=an_id(0))
    assert request.accepted is not None
    if what == "expired":
        request = msgspec.structs.replace(request, requested_at=NOON + timedelta(days=15))
    elif what == "amount":
        request = msgspec.structs.replace(
            request, accepted=msgspec.structs.replace(request.accepted, amount=Decimal("79.99"))
        )
    elif what == "unknown":
        request = msgspec.structs.replace(request, accepted=AcceptedQuote(an_id(0), 1, Decimal("80.00")))
    elif what == "away":
        gone = await open_pool("postgresql://nobody@127.0.0.1:9/none", name="test", size=1)
        away = ShardMap([orders.shards.shards[0], Shard(1, "", gone)])
        request = msgspec.structs.replace(request, accepted=AcceptedQuote(an_id(1), 1, Decimal("80.00")))
        orders = over(orders, away)
    await handlers.create_orders(orders, orders.shards.shards[0], [request])
    order, _ = await last_and_history(orders, request.order_id)
    assert request.accepted is not None
    assert (order.status, order.approve_up_to, order.quote) == (Status.SUBMITTED, request.accepted.amount, None)
    (job,) = await jobs_of(orders, request.order_id)
    await handlers.take_prices(orders, orders.shards.shards[0], [a_price(job.job_id, order.order_id, "79.99")])
    order, _ = await last_and_history(orders, request.order_id)
    assert order.status is Status.MANUFACTURING_APPROVED


def over(orders: Orders, shards: ShardMap) -> Orders:
    """The same use cases over other shards."""
    copy = Orders(
        shards,
        models=orders.models,
        staging=orders.staging,
        tariff=orders.tariff,
        now=orders.now,
        largest_model_bytes=orders.largest_model_bytes,
    )
    copy.known_models = orders.known_models
    return copy


async def test_an_unanswered_quote_fails_like_an_order(orders: Orders) -> None:
    request: QuoteRequested = a_quote_request(a_specification(model=await a_stored_model(orders)), quote_id=an_id(0))
    await quote_handlers.create_quotes(orders, orders.shards.shards[0], [request])
    (job,) = await jobs_of(orders, request.quote_id)
    failed = a_price(job.job_id, job.subject_id, failure=NOT_CLOSED)
    await handlers.take_prices(orders, orders.shards.shards[0], [failed, a_price(job.job_id, job.subject_id)])
    quote = await stored(orders, request.quote_id)
    assert (quote.state, quote.expires_at, quote.options[0].failure) == (QuoteState.FAILED, None, NOT_CLOSED)
