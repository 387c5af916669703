"""Kafka -> use cases: what Orders tells of orders, commands and models."""

from collections.abc import Mapping

from lostwax.channel import worker
from lostwax.channel.handlers import Door
from lostwax.contracts.topics import Topic
from lostwax.kit.messages import Handler
from lostwax.partner_api import changes


def routes(door: Door) -> Mapping[Topic, Handler]:
    return worker.routes(door, changes.take_changes)
