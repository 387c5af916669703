"""Settings of the partner API, from the environment."""

import msgspec

from lostwax.kit.objects import S3Settings


class Settings(msgspec.Struct, frozen=True):
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
    http_host: str = "127.0.0.1"
    log_level: str = "INFO"
    instance: str = ""
    largest_model_bytes: int = 300_000_000
    # Web hooks may go to this machine itself, by http too: for tests and local stacks only.
    hooks_to_loopback: bool = False

    @property
    def s3(self) -> S3Settings:
        return S3Settings(self.s3_endpoint, self.s3_access_key, self.s3_secret_key)
