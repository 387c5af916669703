"""Settings of Reporting, from the environment."""

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """`warehouse`: duckdb:///path/of/a/file, or ydb://[user:password@]host:port/database[?folder=..], ydbs:// with TLS.
    `warehouse_memory` and `warehouse_threads`: DuckDB's, the former as it says it. `time_zone`: the workshop's, in
    which days, weeks and months are counted; rows that are in keep theirs until they are copied anew."""

    http_port: int
    kafka_bootstrap: str
    service_key: str
    service_keys: str
    crm_url: str
    warehouse: str
    connect_url: str = ""
    capture_urls: tuple[str, ...] = ()
    http_host: str = "127.0.0.1"
    trusted_proxies: str = ""
    log_level: str = "INFO"
    telemetry: bool = True
    traces_share: float = 0.1
    instance: str = ""
    warehouse_memory: str = "256MB"
    warehouse_threads: int = 2
    time_zone: str = "Europe/Berlin"
