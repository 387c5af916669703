"""Settings of Telemetry, from the environment."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from lostwax.telemetry import indices
from lostwax.telemetry.indices import Stream


class Settings(msgspec.Struct, frozen=True):
    """`.._days`: how long logs, traces and metrics are kept. `alerts_file`: rules instead of those that come with the
    program; `alerts_url`: who is told of alerts, by POST, signed with `alerts_secret` as partners' web hooks are."""

    http_port: int
    kafka_bootstrap: str
    opensearch_url: str
    service_keys: str
    service_key: str
    crm_url: str
    http_host: str = "127.0.0.1"
    trusted_proxies: str = ""
    log_level: str = "INFO"
    telemetry: bool = True
    traces_share: float = 0.1
    instance: str = ""
    opensearch_user: str = ""
    opensearch_password: str = ""
    opensearch_replicas: int = 0
    logs_days: int = 30
    traces_days: int = 14
    metrics_days: int = 60
    alerts_file: str = ""
    alerts_url: str = ""
    alerts_secret: str = ""
    alerts_every_s: float = 15

    @property
    def kept(self) -> Sequence[tuple[Stream, timedelta]]:
        """Each stream, and for how long."""
        return (
            (indices.LOGS, timedelta(days=self.logs_days)),
            (indices.TRACES, timedelta(days=self.traces_days)),
            (indices.METRICS, timedelta(days=self.metrics_days)),
        )
