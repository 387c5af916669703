"""From Kafka into OpenSearch, on the real servers: everything, once, whatever happens to OpenSearch meanwhile."""

import json
import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from tests.builders import a_partner, an_uploaded_model, order_at, submit, wait_for

from lostwax.contracts import topics
from lostwax.contracts.ids import new_id
from lostwax.contracts.topics import Topic
from lostwax.kit import dead, otlp
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.local.services import SPINE
from lostwax.local.stack import Stack
from lostwax.telemetry import indices, retention
from lostwax.telemetry.clients import OpenSearch
from lostwax.telemetry.documents import Document, log_documents
from lostwax.telemetry.indices import Stream


def lines(word: str, count: int, **attributes: Any) -> bytes:
    """A record of log lines with a word of the test's own in each."""
    now_ns = time.time_ns()
    logs = [otlp.Log(now_ns + n, logging.INFO, f"{word} {n}", attributes, None) for n in range(count)]
    return otlp.encode_logs(otlp.resource("test", "test-0"), logs)


async def publish(stack: Stack, topic: Topic, values: Sequence[bytes]) -> None:
    publisher = Publisher(stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], client_id="test-telemetry", timeout_s=20)
    await publisher.publish([OutgoingRecord(topic.name, "test", value, {}) for value in values])


async def count(search: OpenSearch, stream: Stream, **terms: str) -> int:
    await search.call("POST", f"/{stream.name}/_refresh")
    matches = [{"match_phrase" if name == "message" else "term": {name: value}} for name, value in terms.items()]
    return int((await search.call("POST", f"/{stream.name}/_count", {"query": {"bool": {"filter": matches}}}))["count"])


async def test_everything_that_every_service_says_arrives_within_seconds(seen: Stack, search: OpenSearch) -> None:
    async with await a_partner(seen) as partner:
        order_id = await submit(partner, await an_uploaded_model(partner))
        await order_at(partner, order_id, "PRICE_CALCULATED")

    async def all_there() -> bool:
        for service in SPINE:
            for stream in (indices.LOGS, indices.METRICS):
                if not await count(search, stream, service=service):
                    return False
        # Nothing of these two is called or sent messages by pricing an order.
        return all([await count(search, indices.TRACES, service=s) for s in SPINE if s not in ("crm", "mes")])

    await wait_for(all_there, seconds=60)

    async def hops() -> set[str]:
        found = await search.call(
            "POST",
            f"/{indices.TRACES.name}/_search",
            {"size": 100, "query": {"term": {"order_id": order_id}}, "_source": ["service", "kind"]},
        )
        return {hit["_source"]["service"] for hit in found["hits"]["hits"]}

    await wait_for(lambda: _holds(hops, {"orders", "pricing", "partner_api"}), seconds=60)


async def _holds(hops: Any, wanted: set[str]) -> bool:
    return wanted <= await hops()


async def test_a_batch_that_is_stored_again_makes_no_second_copy(search: OpenSearch) -> None:
    word = f"again{new_id().hex}"
    documents = list(log_documents(lines(word, 50), utc_now()))
    for _ in range(2):
        assert await search.add(indices.LOGS, documents) == []
    assert await count(search, indices.LOGS, message=word) == 50


async def test_what_comes_while_opensearch_is_away_is_there_afterwards(seen: Stack, search: OpenSearch) -> None:
    word = f"away{new_id().hex}"
    seen.kill("opensearch")
    await publish(seen, topics.TELEMETRY_LOGS, [lines(f"{word}x{record}", 40) for record in range(25)])
    async with await a_partner(seen) as partner:  # and orders do not notice
        order_id = await submit(partner, await an_uploaded_model(partner))
        await order_at(partner, order_id, "PRICE_CALCULATED")
    seen.wait_ready("opensearch", 180)

    async def everything() -> bool:
        found = [await count(search, indices.LOGS, message=f"{word}x{record}") for record in range(25)]
        return found == [40] * 25

    await wait_for(everything, seconds=90)


async def test_poison_goes_aside_with_its_reason_and_the_rest_is_stored(seen: Stack, search: OpenSearch) -> None:
    word = f"poison{new_id().hex}"
    await publish(seen, topics.TELEMETRY_LOGS, [lines(f"{word}a", 1), b"\xff\xff no protobuf", lines(f"{word}b", 1)])

    async def both() -> bool:
        return [await count(search, indices.LOGS, message=f"{word}{x}") for x in "ab"] == [1, 1]

    await wait_for(both, seconds=60)
    letters = dead.read(seen.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], [topics.TELEMETRY_LOGS])
    (letter,) = [a for a in letters[topics.TELEMETRY_LOGS].open.values() if a.value == b"\xff\xff no protobuf"]
    assert (letter.reason, letter.detail.split(":")[0]) == ("malformed", "no ExportLogsServiceRequest")


async def test_lines_of_a_megabyte_and_odd_attributes_are_kept(seen: Stack, search: OpenSearch) -> None:
    word = f"odd{new_id().hex}"
    odd = {
        "кириллица": "щ" * 1_000_000,
        "😀" * 200: "😀" * 1_000_000,
        "deep.dotted.name": 1,
        "deep": {"dotted": {"name": "a text"}},
        "list": [1, "two", None],
        "": "no name",
        "order": "not an id",
    }
    await publish(seen, topics.TELEMETRY_LOGS, [lines(word, 1, **odd), lines(f"{word}long" + " z" * 500_000, 1)])

    async def both() -> bool:
        found = (
            await count(search, indices.LOGS, message=word),
            await count(search, indices.LOGS, message=f"{word}long"),
        )
        return found == (1, 1)

    await wait_for(both, seconds=60)


async def test_a_document_that_does_not_fit_is_refused_and_the_others_are_stored(search: OpenSearch) -> None:
    word = f"misfit{new_id().hex}"
    good, other = log_documents(lines(word, 2), utc_now())
    misfit = Document("misfit" + word, json.dumps({"@timestamp": "yesterday, about noon", "service": "x"}).encode())
    unknown = Document(
        "unknown" + word, json.dumps({"@timestamp": utc_now().isoformat(), "service": "x", "field": 1}).encode()
    )
    refused = await search.add(indices.LOGS, [good, misfit, unknown, other])
    assert [refusal.number for refusal in refused] == [1, 2]
    assert "strict_dynamic_mapping" in refused[1].reason
    assert await count(search, indices.LOGS, message=word) == 2


async def test_old_telemetry_goes_and_what_is_young_or_written_to_stays(search: OpenSearch) -> None:
    stream = Stream("retention-test", indices.LOGS.properties)
    await search.prepare([stream], replicas=0)
    try:
        await search.prepare([stream], replicas=0)  # as every start does
        now = utc_now()
        for age_days in (20, 2, 0):
            at = (now - timedelta(days=age_days)).isoformat()
            document = Document(f"{age_days}", json.dumps({"@timestamp": at, "service": "x"}).encode())
            assert await search.add(stream, [document]) == []
            await search.call("POST", f"/{stream.name}/_refresh")
            await search.roll_over(stream, {})
        oldest, *others = [i.name for i in await search.backing_indices(stream)]
        assert await retention.tidy(search, stream, timedelta(days=10), now) == [oldest]
        assert [i.name for i in await search.backing_indices(stream)] == others
        assert await retention.tidy(search, stream, timedelta(days=10), now) == []
        await retention.tidy(search, stream, timedelta(0), now + timedelta(days=1))
        assert [i.writing for i in await search.backing_indices(stream)] == [True]
    finally:
        await search.call("DELETE", f"/_data_stream/{stream.name}")
        await search.call("DELETE", f"/_index_template/{stream.name}")
