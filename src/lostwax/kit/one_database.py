"""What every service with one database has: its pool, its relay, its consumer, and how they tell that they are well."""

from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

from lostwax.contracts.capture import columns_of
from lostwax.contracts.topics import ALL, Topic
from lostwax.kit.auth import ServiceVerifier
from lostwax.kit.captured import publish
from lostwax.kit.consumer import Runner
from lostwax.kit.http import Check, Operation
from lostwax.kit.kafka import Publisher
from lostwax.kit.messages import Handler
from lostwax.kit.postgres import UNREACHABLE, Pool, migrate, open_pool
from lostwax.kit.publishing import PublishingLimits
from lostwax.kit.relay import Relay
from lostwax.kit.service_calls import publishing_operations

_AT_ONCE = 64
"""So many messages of a partition are handled together. These processes answer people as well, who wait for as long as
the batches of all partitions take: with 500 a 202 took a second when Kafka was back after an outage."""


class HasOneDatabase(Protocol):
    """The settings that such a service has among its others."""

    @property
    def database_url(self) -> str: ...
    @property
    def kafka_bootstrap(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def service_keys(self) -> str: ...


async def open_database(
    service: str, settings: HasOneDatabase, migrations: Path, resources: AsyncExitStack, *, size: int = 16
) -> Pool:
    """Migrate the service's database, show change capture what contracts.capture lists, and open its pool, which
    `resources` will close."""
    await migrate(settings.database_url, migrations)
    await publish(settings.database_url, columns_of(service))
    return await resources.enter_async_context(await open_pool(settings.database_url, name=service, size=size))


class Plumbing:
    """Relay and consumer of a service with one database. `background` runs them; nothing runs before that."""

    def __init__(self, service: str, settings: HasOneDatabase, pool: Pool, routes: Mapping[Topic, Handler]) -> None:
        self._pool = pool
        self._writes = tuple(topic for topic in ALL if service in topic.written_by)
        self.verifier = ServiceVerifier(service, settings.service_keys)
        self.limits = PublishingLimits(settings.database_url)
        self._relay = Relay(
            settings.database_url,
            service=service,
            topics=self._writes,
            publisher=Publisher(settings.kafka_bootstrap, client_id=f"{service}-relay"),
            limits=self.limits,
        )
        self._runner = Runner(
            settings.kafka_bootstrap,
            group=service,
            routes=routes,
            publisher=Publisher(settings.kafka_bootstrap, client_id=f"{service}-dead"),
            batch=_AT_ONCE,
            instance=settings.instance,
            later=UNREACHABLE,
        )

    def operations(self) -> list[Operation]:
        """The publishing API of this service."""
        return publishing_operations(self._writes, self.limits, self._pool, self.verifier)

    def checks(self) -> dict[str, Check]:
        """Readiness: the database answers, the consumer is well."""

        async def database() -> str | None:
            try:
                await self._pool.fetchval("SELECT 1")
            except UNREACHABLE as error:
                return repr(error)
            return None

        async def kafka() -> str | None:
            return self._runner.readiness

        return {"database": database, "kafka": kafka}

    def background(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """Named work for `service.serve`, in the order in which it starts; it stops in the opposite order."""
        return [
            ("publishing limits", self.limits.run()),
            ("relay", self._relay.run()),
            ("consumer", self._runner.run()),
        ]
