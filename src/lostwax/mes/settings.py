"""Settings of the MES, from the environment."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True):
    http_port: int
    kafka_bootstrap: str
    database_url: str
    redis_url: str
    orders_url: str
    crm_url: str
    service_key: str
    service_keys: str
    http_host: str = "127.0.0.1"
    trusted_proxies: str = ""
    log_level: str = "INFO"
    telemetry: bool = True
    traces_share: float = 0.1
    instance: str = ""
    # Hours after which a confirmed claim goes back to the queue by itself; 0: never.
    claim_limit_h: Annotated[float, Meta(ge=0)] = 72.0
