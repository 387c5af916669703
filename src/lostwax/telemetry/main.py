"""Telemetry, wired: the only place that reads settings and puts the parts together."""

import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from lostwax.kit import telemetry
from lostwax.kit.auth import ServiceSigner, ServiceVerifier, StaffVerifier
from lostwax.kit.clock import utc_now
from lostwax.kit.consumer import Runner
from lostwax.kit.http import build_app
from lostwax.kit.kafka import Publisher
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.service import run, serve
from lostwax.kit.settings import SettingsError, read_settings
from lostwax.kit.webhooks import check_secret
from lostwax.telemetry import api, dead_letters, lag, pages, retention, worker
from lostwax.telemetry.alerting import Watch
from lostwax.telemetry.clients import Hook, OpenSearch, SearchAway
from lostwax.telemetry.handlers import Tail
from lostwax.telemetry.rules import BadRules, Rule, parse
from lostwax.telemetry.settings import Settings


def _rules(settings: Settings) -> Sequence[Rule]:
    """Raises SettingsError."""
    path = Path(settings.alerts_file) if settings.alerts_file else Path(__file__).parent / "alerts.toml"
    try:
        return parse(path.read_text())
    except (BadRules, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"alerts cannot be read from {path}: {error}") from None


async def serve_telemetry(settings: Settings) -> None:
    rules = _rules(settings)
    async with AsyncExitStack() as resources:
        await resources.enter_async_context(telemetry.running("telemetry", settings))
        search = OpenSearch(
            settings.opensearch_url, user=settings.opensearch_user, password=settings.opensearch_password
        )
        resources.push_async_callback(search.close)
        runner = Runner(
            settings.kafka_bootstrap,
            group="telemetry",
            routes=worker.routes(search),
            decoders=worker.decoders(utc_now),
            publisher=Publisher(settings.kafka_bootstrap, client_id="telemetry-dead"),
            instance=settings.instance,
            batch=worker.BATCH,
            batch_bytes=worker.BATCH_BYTES,
            later=(SearchAway,),
        )

        crm = Neighbour("crm", settings.crm_url, ServiceSigner("telemetry", settings.service_key))
        resources.push_async_callback(crm.close)
        door = api.Door(
            StaffVerifier(settings.service_keys, issuer="crm"),
            ServiceVerifier("telemetry", settings.service_keys),
            partial(pages.stands, crm),
        )

        hook = _hook(settings)
        if hook is not None:
            resources.push_async_callback(hook.close)
        watch = Watch(
            search, rules, hook, every_s=settings.alerts_every_s, replicas=settings.opensearch_replicas, now=utc_now
        )

        async def kafka() -> str | None:
            return runner.readiness

        app = build_app(
            "telemetry",
            api.operations(search, Tail(search), watch, door, utc_now),
            checks={"kafka": kafka},
            extra_routes=pages.routes(door, crm, utc_now),
            description="What all services did: logs, metrics and traces. In no order's path.",
        )
        await serve(
            "telemetry",
            app,
            host=settings.http_host,
            port=settings.http_port,
            trusted_proxies=settings.trusted_proxies,
            background=[
                ("streams", retention.run(search, settings.kept, replicas=settings.opensearch_replicas, now=utc_now)),
                ("consumer", runner.run()),
                ("lags", lag.run(settings.kafka_bootstrap)),
                ("dead letters", dead_letters.run(settings.kafka_bootstrap)),
                ("alerts", watch.run()),
            ],
        )


def _hook(settings: Settings) -> Hook | None:
    """None: nobody is told. Raises SettingsError."""
    if not settings.alerts_url:
        return None
    try:
        check_secret(settings.alerts_secret)
    except ValueError as error:
        raise SettingsError(f"LOSTWAX_ALERTS_SECRET signs what LOSTWAX_ALERTS_URL is sent: {error}") from None
    return Hook(settings.alerts_url, settings.alerts_secret, utc_now)


def main() -> None:
    run(serve_telemetry(read_settings(Settings, os.environ)))
