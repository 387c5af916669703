"""How far all readers are behind, measured for all of them: a reader that has died cannot say it itself."""

import asyncio
import logging

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from lostwax.contracts.metrics import CONSUMER_LAG
from lostwax.contracts.topics import ALL
from lostwax.kit import metrics
from lostwax.kit.lags import lags

log = logging.getLogger(__name__)

EVERY_S = 10.0
_lag = metrics.gauge(CONSUMER_LAG)


async def run(bootstrap: str) -> None:
    """Measure until cancelled; Kafka may come and go."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 5_000})
    groups = sorted({reader for topic in ALL for reader in topic.read_by})
    away = False
    while True:
        try:
            for (group, topic), behind in (await asyncio.to_thread(lags, admin, groups)).items():
                _lag.set(behind, group, topic)
            away = False
        except (KafkaException, TimeoutError) as error:
            if not away:
                log.warning("lags not measured", extra={"error": repr(error)})
            away = True
        await asyncio.sleep(EVERY_S)
