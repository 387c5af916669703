"""Topics: each has a writer and a reader that exist and do it, and every message type belongs to one."""

from pathlib import Path
from typing import Any

import pytest

import lostwax
from lostwax.contracts import capture, catalogue, topics
from lostwax.contracts.ids import PARTITIONS
from lostwax.contracts.topics import Topic
from lostwax.crm import worker as crm
from lostwax.mes import worker as mes
from lostwax.orders import worker as orders
from lostwax.partner_api import worker as partner_api
from lostwax.pricing import worker as pricing
from lostwax.reporting import worker as reporting
from lostwax.shop import worker as shop

NOTHING: Any = None  # routes only bind what handlers will need; nothing is called here

ROUTES = {
    "partner_api": partner_api.routes(NOTHING),
    "shop": shop.routes(NOTHING, NOTHING),
    "orders": orders.routes(NOTHING),
    "pricing": pricing.routes(NOTHING, NOTHING),
    "mes": mes.routes(NOTHING),
    "crm": crm.routes(NOTHING, NOTHING),
    "telemetry": {},
    "reporting": reporting.routes(NOTHING, NOTHING),
}
CONSTANTS = {value.name: name for name, value in vars(topics).items() if isinstance(value, Topic)}


DOORS = ("partner_api", "shop", "crm")
"""Write what channel/ writes."""


def sources(service: str) -> str:
    folders = (service, "channel") if service in DOORS else (service,)
    return "".join(p.read_text() for f in folders for p in (Path(lostwax.__file__).parent / f).glob("*.py"))


def test_all_lists_every_topic_once() -> None:
    names = [topic.name for topic in (*topics.ALL, *topics.TELEMETRY)]
    assert sorted(names) == sorted(CONSTANTS)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda t: t.name)
def test_a_topic_has_a_reader_and_a_writer_that_exist(topic: Topic) -> None:
    assert topic.written_by
    assert topic.read_by
    for writer in topic.written_by:
        assert writer in ROUTES
        assert f"topics.{CONSTANTS[topic.name]}" in sources(writer)
    assert {service for service, routes in ROUTES.items() if topic in routes} == set(topic.read_by)


def test_every_captured_table_is_read() -> None:
    assert set(ROUTES["reporting"]) == set(capture.TOPICS)


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda t: t.name)
def test_topics_by_bucket_have_the_same_partitions(topic: Topic) -> None:
    assert topic.by_bucket
    assert topic.partitions == PARTITIONS
    assert PARTITIONS & (PARTITIONS - 1) == 0


def test_every_type_belongs_to_a_topic_and_every_topic_carries_a_type() -> None:
    for type_ in catalogue.TYPES:
        assert type_.topics
        assert set(type_.topics) <= set(topics.ALL)
    assert {topic for type_ in catalogue.TYPES for topic in type_.topics} == set(topics.ALL)
