"""Kafka -> pricing -> Kafka. Offsets are stored after the results are acknowledged, so a job is answered at least once;
the answers of one job are all the same."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from uuid import UUID

from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, derived_id, partition_of
from lostwax.contracts.metrics import PRICES
from lostwax.contracts.pricing import Priced, PriceResult
from lostwax.contracts.topics import Topic
from lostwax.kit import metrics, tracing
from lostwax.kit.clock import utc_now
from lostwax.kit.coalescer import Coalescer
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.kit.messages import Handler, Incoming, Later
from lostwax.pricing.handlers import Pricer

_prices = metrics.histogram(PRICES)


def routes(pricer: Pricer, publisher: Publisher) -> Mapping[Topic, Handler]:
    async def publish(records: Sequence[OutgoingRecord]) -> Sequence[None]:
        await publisher.publish(records)
        return [None] * len(records)

    results: Coalescer[OutgoingRecord, None] = Coalescer(publish, flushers=1, max_waiting=1_000_000)

    def lane(heavy: bool) -> Handler:
        async def one(incoming: Incoming) -> None:
            # In a task of its own: the batch's trace is not this job's.
            tracing.current.set(tracing.of(catalogue.subject_of(incoming.body)))
            began = time.monotonic()
            try:
                with tracing.span("price", lane="heavy" if heavy else "quick"):
                    result = await pricer.price(incoming.body, heavy=heavy)
            except RuntimeError as error:
                raise Later(str(error)) from error
            await results.submit(_record(result))
            outcome = "priced" if isinstance(result.result, Priced) else result.result.failure.code
            _prices.record(time.monotonic() - began, "heavy" if heavy else "quick", outcome)

        async def handle_batch(batch: Sequence[Incoming]) -> None:
            done = await asyncio.gather(*(asyncio.create_task(one(i)) for i in batch), return_exceptions=True)
            for outcome in done:
                if outcome is not None:
                    raise outcome

        return handle_batch

    return {topics.PRICING_QUICK: lane(heavy=False), topics.PRICING_HEAVY: lane(heavy=True)}


def _record(result: PriceResult) -> OutgoingRecord:
    # The same job gives the same message id, however often it is answered.
    message_id: UUID = derived_id("price-result", str(result.job_id))
    headers = catalogue.cloud_headers(
        str(message_id), catalogue.type_of(result).name, "pricing", utc_now(), tracing.current.get()
    )
    return OutgoingRecord(
        topics.PRICING_RESULTS.name,
        str(result.job_id),
        catalogue.encode(result),
        headers,
        partition_of(bucket_of(result.subject_id)),
    )
