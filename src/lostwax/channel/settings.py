"""What every door is told by the environment, beside what is its own."""

from typing import Annotated

import msgspec
from msgspec import Meta

from lostwax.kit.objects import S3Settings


class DoorSettings(msgspec.Struct, frozen=True, kw_only=True):
    http_port: int
    kafka_bootstrap: str
    database_url: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    staging_bucket: str
    orders_url: str
    service_key: str
    service_keys: str
    redis_url: str
    http_host: str = "127.0.0.1"
    # Addresses or networks, by comma, whose X-Forwarded-For and -Proto are believed.
    trusted_proxies: str = ""
    log_level: str = "INFO"
    telemetry: bool = True
    traces_share: float = 0.1
    instance: str = ""
    largest_model_bytes: int = 1_000_000_000
    # Uploads that are never ordered are given up after so many days.
    staging_days: Annotated[int, Meta(ge=1)] = 7

    @property
    def s3(self) -> S3Settings:
        return S3Settings(self.s3_endpoint, self.s3_access_key, self.s3_secret_key)


class ClientsSettings(DoorSettings, frozen=True, kw_only=True):
    """Of a door whose clients come in by themselves."""

    # Requests a client may send, unless it has a limit of its own: a second in the long run, and at once.
    client_rate_per_s: Annotated[float, Meta(gt=0)] = 50
    client_burst: Annotated[int, Meta(ge=1)] = 200
    # Orders of the last so many days are read from Redis, older ones from the database.
    cache_days: Annotated[int, Meta(ge=1, le=3650)] = 30
