"""The staff's accounts as `staff.changes` tells them, kept in memory: Reporting has no database to keep them in."""

import asyncio
import logging
from uuid import UUID

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from lostwax.contracts import topics
from lostwax.contracts.staff import StaffChanged
from lostwax.kit.auth import Member
from lostwax.kit.staff import Account

log = logging.getLogger(__name__)
_AGAIN_S = 5.0


class StaffKnown:
    """Reads the compacted topic from its beginning and goes on. Who is not known yet (Kafka is away, or the change is
    under way) is let in by the token alone, which only the CRM can sign and which ends with the shift."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._accounts: dict[UUID, Account] = {}
        self._stop = False

    async def account(self, member: Member) -> Account:
        return self._accounts.get(member.staff_id) or Account(member.role, True, member.version)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                work = asyncio.ensure_future(asyncio.to_thread(self._read))
                try:
                    await asyncio.shield(work)
                except KafkaException as error:
                    log.warning("staff.changes cannot be read", extra={"error": repr(error)})
                finally:
                    self._stop = not work.done()
                    if self._stop:
                        await work
                await asyncio.sleep(_AGAIN_S)
        finally:
            self._stop = True

    def _read(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "reporting-staff",  # never used: no group is joined, nothing is committed
                "enable.auto.commit": False,
                "reconnect.backoff.max.ms": 5000,
                "log_level": 0,
            }
        )
        try:
            name = topics.STAFF_CHANGES.name
            partitions = consumer.list_topics(name, timeout=5).topics[name].partitions
            consumer.assign([TopicPartition(name, number, OFFSET_BEGINNING) for number in partitions])
            while partitions and not self._stop:
                for message in consumer.consume(500, 0.25):
                    if message.error() is None:
                        self._take(message.value())
        finally:
            consumer.close()

    def _take(self, value: bytes | str | None) -> None:
        if not value:
            return
        try:
            change = msgspec.json.decode(value, type=StaffChanged)
        except msgspec.MsgspecError:
            log.warning("a change of the staff cannot be read")
            return
        known = self._accounts.get(change.staff_id)
        if known is None or change.version > known.version:
            self._accounts[change.staff_id] = Account(change.role, change.active, change.version)
