"""PriceCalculation, wired: the only place that reads settings and puts the parts together."""

import os
from contextlib import AsyncExitStack

from lostwax.kit import telemetry
from lostwax.kit.consumer import Runner
from lostwax.kit.http import build_app
from lostwax.kit.kafka import Publisher
from lostwax.kit.objects import Bucket, StorageAway
from lostwax.kit.service import run, serve
from lostwax.kit.settings import read_settings
from lostwax.pricing import worker
from lostwax.pricing.handlers import Pricer
from lostwax.pricing.sandbox import Sandbox
from lostwax.pricing.settings import Settings


async def serve_pricing(settings: Settings) -> None:
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("pricing", settings))
        sandbox = Sandbox(settings.jobs_at_once)
        resources.push_async_callback(sandbox.close)
        await sandbox.start()
        pricer = Pricer(Bucket(settings.s3, settings.models_bucket), sandbox)
        publisher = Publisher(settings.kafka_bootstrap, client_id="pricing-results")
        runner = Runner(
            settings.kafka_bootstrap,
            group="pricing",
            routes=worker.routes(pricer, publisher),
            publisher=Publisher(settings.kafka_bootstrap, client_id="pricing-dead"),
            instance=settings.instance,
            later=(StorageAway,),
        )

        async def consumes() -> str | None:
            return runner.readiness

        app = build_app(
            "pricing", [], checks={"kafka": consumes}, description="Prices models; it has no API of its own."
        )
        await serve(
            "pricing",
            app,
            host=settings.http_host,
            port=settings.http_port,
            background=[("consumer", runner.run())],
        )


def main() -> None:
    run(serve_pricing(read_settings(Settings, os.environ)))
