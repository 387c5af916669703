"""Settings of the CRM, from the environment."""

import msgspec


class Settings(msgspec.Struct, frozen=True):
    http_port: int
    kafka_bootstrap: str
    database_url: str
    orders_url: str
    service_key: str
    service_keys: str
    http_host: str = "127.0.0.1"
    log_level: str = "INFO"
    telemetry: bool = True
    traces_share: float = 0.1
    instance: str = ""
