"""Use cases of quotes. A quote lives on the shard of its own id and is priced by the same jobs as orders are; an order
placed by one reads it from there."""

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from lostwax.contracts import topics
from lostwax.contracts.ids import bucket_of
from lostwax.contracts.models import ModelNeeded
from lostwax.contracts.orders import ModelReady, OrderRequested, Quote
from lostwax.contracts.pricing import PriceResult
from lostwax.contracts.quotes import KEPT, PriceQuote, QuoteChanged, QuoteRequested
from lostwax.kit import outbox, tracing
from lostwax.kit.outbox import Message
from lostwax.kit.postgres import UNREACHABLE, Connection
from lostwax.kit.shards import Shard, check_owned
from lostwax.orders import domain, price_jobs, quote_domain, quotes_store
from lostwax.orders.changes import Orders, stored_models
from lostwax.orders.price_jobs import Lane, PriceJob, SubjectKind
from lostwax.orders.quotes_store import QuoteEntry

log = logging.getLogger(__name__)

_PRICED_WITHIN = timedelta(days=2)
"""A quote holds from when it is priced: the model is kept this much longer than it holds."""


async def create_quotes(orders: Orders, shard: Shard, requests: Sequence[QuoteRequested]) -> None:
    """Take each requested quote up once; ask for its prices, or for its model. One that would be forgotten at once is
    passed over: the topic is read from its beginning."""
    now = orders.now()
    requests = [request for request in requests if request.requested_at > now - KEPT]
    until = now + timedelta(days=orders.tariff.held_for_days) + _PRICED_WITHIN
    stored = await stored_models(orders, {r.options[0].model.sha256 for r in requests})
    entries = {
        r.quote_id: QuoteEntry(quote_domain.begin(r, now), r.options[0].model.sha256 not in stored) for r in requests
    }
    async with shard.pool.acquire() as connection, connection.transaction():
        await check_owned(connection, map(bucket_of, entries))
        new = [entries[i] for i in sorted(await quotes_store.insert(connection, list(entries.values())))]
        messages = [_changed(e.quote) for e in new]
        for quote in (e.quote for e in new if e.needs_model):
            sha256 = quote.options[0].specification.model.sha256
            needed = ModelNeeded(
                sha256=sha256,
                order_id=quote.quote_id,
                account=quote.account,
                upload=quote.options[0].specification.model.upload,
                until=until,
            )
            messages.append(outbox.message(topics.MODEL_TRANSFERS, sha256, needed))
        needs = {(e.quote.options[0].specification.model.sha256, e.quote.account) for e in new if not e.needs_model}
        told = {need: message for need in needs if (message := orders.reference(*need, "quote", until))}
        messages += [told[need] for need in sorted(told)]
        await outbox.add(connection, messages)
        await price_jobs.insert(connection, [job for e in new if not e.needs_model for job in _jobs(orders, e.quote)])
    for sha256, account in told:
        orders.told(sha256, account, "quote", until)


async def take_models(orders: Orders, connection: Connection, ready: Sequence[ModelReady]) -> None:
    """In the caller's transaction: ask for the prices of quotes whose model has come, or say why it never will. Ids
    that are no quote's are passed over."""
    entries = await quotes_store.lock(connection, (r.order_id for r in ready))
    changed: dict[UUID, QuoteEntry] = {}
    jobs: list[PriceJob] = []
    messages: list[Message] = []
    for message in ready:
        entry = entries.get(message.order_id)
        if entry is None or not entry.needs_model:
            continue
        model = entry.quote.options[0].specification.model
        if model.sha256 != message.sha256 or (message.failure is not None and message.upload < model.upload):
            continue
        entry.needs_model = False
        changed[message.order_id] = entry
        if message.failure is None:
            jobs += _jobs(orders, entry.quote)
        elif (failed := quote_domain.fail(entry.quote, message.failure, orders.now())) is not None:
            entry.quote = failed
            messages.append(_changed(failed))
    await quotes_store.update(connection, [changed[i] for i in sorted(changed)])
    await outbox.add(connection, messages)
    await price_jobs.insert(connection, jobs)


async def take_prices(orders: Orders, connection: Connection, results: Sequence[PriceResult]) -> set[UUID]:
    """In the caller's transaction: give quotes the prices that count. Returns the subjects that are quotes; the jobs
    are the caller's to settle."""
    entries = await quotes_store.lock(connection, (r.subject_id for r in results))
    by_quote: dict[UUID, dict[UUID, PriceResult]] = {}
    for result in results:
        by_quote.setdefault(result.subject_id, {}).setdefault(result.job_id, result)
    changed: list[QuoteEntry] = []
    for quote_id in sorted(entries):
        entry = entries[quote_id]
        after = quote_domain.take_prices(entry.quote, by_quote[quote_id], orders.tariff.held_for_days, orders.now())
        if after is not None:
            entry.quote = after
            changed.append(entry)
    await quotes_store.update(connection, changed)
    await outbox.add(connection, [_changed(e.quote) for e in changed])
    return set(entries)


async def accepted_prices(orders: Orders, requests: Collection[OrderRequested]) -> Mapping[UUID, Quote]:
    """The prices, by order id, at which orders are placed: of quotes that can be read and hold. Reads the quotes'
    shards before any transaction; an order whose quote cannot be read is priced anew."""
    by_shard: dict[int, list[OrderRequested]] = {}
    for request in requests:
        if request.accepted is not None:
            number = orders.shards.of(bucket_of(request.accepted.quote_id)).number
            by_shard.setdefault(number, []).append(request)
    prices: dict[UUID, Quote] = {}
    for number, some in by_shard.items():
        try:
            async with orders.shards.shards[number].pool.acquire() as connection:
                found = await quotes_store.read(connection, {r.accepted.quote_id for r in some if r.accepted})
        except UNREACHABLE as error:
            log.warning("quotes away, pricing anew", extra={"shard": number, "error": repr(error)})
            continue
        for request in some:
            assert request.accepted is not None
            price = quote_domain.accepted_price(found.get(request.accepted.quote_id), request)
            if price is None:
                log.warning("quote does not hold, pricing anew", extra={"order": request.order_id})
            else:
                prices[request.order_id] = price
    return prices


def _jobs(orders: Orders, quote: PriceQuote) -> list[PriceJob]:
    return [
        PriceJob(
            job_id=job_id,
            kind=SubjectKind.QUOTE,
            subject_id=quote.quote_id,
            account=quote.account,
            lane=Lane.HEAVY if domain.is_heavy(quote.options[number - 1].specification) else Lane.QUICK,
            specification=quote.options[number - 1].specification,
            tariff=orders.tariff.version,
            traceparent=tracing.of(str(quote.quote_id)),
        )
        for job_id, number in quote_domain.open_jobs(quote).items()
    ]


def _changed(quote: PriceQuote) -> Message:
    return outbox.message(topics.QUOTE_CHANGES, quote.quote_id, QuoteChanged(quote))
