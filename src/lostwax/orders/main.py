"""Orders, wired: the only place that reads settings and puts the parts together."""

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

from lostwax.contracts import topics
from lostwax.contracts.capture import columns_of
from lostwax.contracts.ids import bucket_of
from lostwax.contracts.orders import Order
from lostwax.kit import telemetry
from lostwax.kit.auth import ServiceSigner, ServiceVerifier
from lostwax.kit.captured import publish
from lostwax.kit.clock import utc_now
from lostwax.kit.consumer import Runner
from lostwax.kit.http import build_app
from lostwax.kit.kafka import Publisher
from lostwax.kit.objects import Bucket, StorageAway
from lostwax.kit.postgres import UNREACHABLE, migrate, open_pool
from lostwax.kit.publishing import PublishingLimits
from lostwax.kit.rebuilding import rebuild_operations
from lostwax.kit.relay import Relay
from lostwax.kit.service import run, serve
from lostwax.kit.service_calls import publishing_operations
from lostwax.kit.settings import read_settings
from lostwax.kit.shards import Shard, ShardMap, assign_first_buckets
from lostwax.orders import ages, api, changes, grace, models_api, parking, price_jobs_api, store, worker
from lostwax.orders.clients import OrderCache
from lostwax.orders.desk import Desk
from lostwax.orders.expectations import Expectations
from lostwax.orders.price_jobs import Lane, Terms
from lostwax.orders.settings import Settings

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
WRITES = tuple(topic for topic in topics.ALL if "orders" in topic.written_by)


async def _prepare(shard: Shard, shard_map: ShardMap, *, wait_s: float) -> None:
    """Migrate a shard and read what it owns. Raises the database's own error when it stays away for `wait_s`."""
    await migrate(shard.dsn, MIGRATIONS, wait_s=wait_s)
    await publish(shard.dsn, columns_of("orders"))
    async with shard.pool.acquire() as connection:
        await assign_first_buckets(connection, shard.number, len(shard_map.shards))
    await shard_map.reload(shard)


async def _prepare_when_back(shards: Sequence[Shard], shard_map: ShardMap) -> None:
    """Prepare shards that were away at the start, whenever they come; then rest until cancelled."""
    waiting = list(shards)
    while waiting:
        try:
            await _prepare(waiting[0], shard_map, wait_s=3600)
        except UNREACHABLE as error:
            log.warning("shard away", extra={"shard": waiting[0].number, "error": repr(error)})
        else:
            waiting.pop(0)
    await asyncio.Event().wait()


async def serve_orders(settings: Settings) -> None:
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("orders", settings))
        await migrate(settings.control_url, None)
        control = await resources.enter_async_context(await open_pool(settings.control_url, name="orders", size=3))
        shards = []
        for number, url in enumerate(settings.shard_urls):
            pool = await resources.enter_async_context(await open_pool(url, name="orders", size=12))
            shards.append(Shard(number, url, pool))
        shard_map = ShardMap(shards)
        away = []
        for shard in shards:
            try:
                await _prepare(shard, shard_map, wait_s=5)
            except UNREACHABLE as error:
                # Its orders wait; those of the others must not.
                log.warning("starting without a shard", extra={"shard": shard.number, "error": repr(error)})
                away.append(shard)
        buckets: dict[str, Bucket] = {}

        def staging(name: str) -> Bucket:
            return buckets.setdefault(name, Bucket(settings.s3, name))

        models = Bucket(settings.s3, settings.models_bucket)

        async def load(order_ids: Sequence[UUID]) -> Sequence[Order]:
            by_shard: dict[int, list[UUID]] = {}
            for order_id in order_ids:
                by_shard.setdefault(shard_map.of(bucket_of(order_id)).number, []).append(order_id)
            found: list[Order] = []
            for number, some in by_shard.items():
                async with shards[number].pool.acquire() as connection:
                    found += await store.some(connection, some)
            return found

        cache = OrderCache(settings.redis_url, settings.control_url, control, load)
        resources.push_async_callback(cache.close)
        orders = changes.Orders(
            shard_map,
            models=models,
            staging=staging,
            tariff=changes.load_tariff(settings.tariff),
            now=utc_now,
            largest_model_bytes=settings.largest_model_bytes,
            cache=cache,
        )
        limits = PublishingLimits(settings.control_url)
        relays = [
            Relay(
                shard.dsn,
                service="orders",
                name=f"orders shard {shard.number}",
                topics=WRITES,
                publisher=Publisher(settings.kafka_bootstrap, client_id=f"orders-relay-{shard.number}"),
                limits=limits,
                share=1 / len(shards),
            )
            for shard in shards
        ]
        dead_letters = Publisher(settings.kafka_bootstrap, client_id="orders-dead")
        runner = Runner(
            settings.kafka_bootstrap,
            group="orders",
            routes=worker.routes(orders),
            publisher=dead_letters,
            instance=settings.instance,
            later=(*UNREACHABLE, StorageAway),
            dead_watches=worker.dead_watches(orders),
        )
        verifier = ServiceVerifier("orders", settings.service_keys)
        expectations = Expectations(
            shard_map,
            settings.channels,
            ServiceSigner("orders", settings.service_key),
            delay_s=lambda: runner.delay_s(topics.ORDER_REQUESTS),
            handled=lambda: runner.handled,
        )

        async def shards_answer() -> str | None:
            away = []
            for shard in shards:
                try:
                    await shard.pool.fetchval("SELECT 1")
                except UNREACHABLE as error:
                    away.append(f"shard {shard.number}: {error!r}")
            return "; ".join(away) or None

        async def consumes() -> str | None:
            return runner.readiness

        terms = {
            Lane.QUICK: Terms(settings.price_window_quick, settings.price_patience_quick_s),
            Lane.HEAVY: Terms(settings.price_window_heavy, settings.price_patience_heavy_s),
        }
        app = build_app(
            "orders",
            [
                *api.operations(shard_map, cache, verifier),
                *models_api.operations(orders, verifier, largest_put_bytes=settings.largest_put_bytes),
                *price_jobs_api.operations(shard_map, terms, verifier),
                api.announcement_operation(expectations, verifier),
                *publishing_operations(WRITES, limits, control, verifier),
                *rebuild_operations(cache, verifier),
            ],
            checks={"shards": shards_answer, "kafka": consumes},
            description="Orders, for other services of Lostwax.",
        )
        await serve(
            "orders",
            app,
            host=settings.http_host,
            port=settings.http_port,
            background=[
                ("orders in Redis", cache.run()),
                ("publishing limits", limits.run()),
                *[(f"relay {s.number}", r.run()) for s, r in zip(shards, relays, strict=True)],
                *[(f"desk {s.number}", Desk(orders, s, terms).run()) for s in shards],
                ("shards that were away", _prepare_when_back(away, shard_map)),
                ("consumer", runner.run()),
                ("expectations", expectations.run()),
                ("models not needed", grace.let_go(orders, settings.model_grace_days)),
                ("ages", ages.run(shards, utc_now)),
                ("early commands", parking.give_up_early_commands(orders, dead_letters)),
            ],
        )


def main() -> None:
    run(serve_orders(read_settings(Settings, os.environ)))
