"""Settings of Orders, from the environment."""

from typing import Annotated

import msgspec
from msgspec import Meta

from lostwax.kit.objects import S3Settings


class Settings(msgspec.Struct, frozen=True):
    http_port: int
    kafka_bootstrap: str
    shard_urls: tuple[str, ...]
    control_url: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    models_bucket: str
    channel_urls: tuple[str, ...]
    service_key: str
    service_keys: str
    redis_url: str
    http_host: str = "127.0.0.1"
    tariff: str = "2026-11"
    log_level: str = "INFO"
    telemetry: bool = True
    traces_share: float = 0.1
    instance: str = ""
    largest_model_bytes: int = 1_000_000_000
    # Of each shard: price jobs out at once, and seconds until one that is not answered is asked again.
    price_window_quick: int = 64
    price_window_heavy: int = 2
    price_patience_quick_s: float = 60.0
    price_patience_heavy_s: float = 600.0
    # Largest file that a service may put into the model store through the API of Orders.
    largest_put_bytes: int = 64_000_000
    # A model that nothing needs any more is removed after so many days.
    model_grace_days: Annotated[int, Meta(ge=1)] = 30

    @property
    def channels(self) -> dict[str, str]:
        """Address by channel, from `name=http://host:port`."""
        return dict(entry.split("=", 1) for entry in self.channel_urls)

    @property
    def s3(self) -> S3Settings:
        return S3Settings(self.s3_endpoint, self.s3_access_key, self.s3_secret_key)
