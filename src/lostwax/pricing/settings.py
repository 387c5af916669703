"""Settings of PriceCalculation, from the environment."""

import msgspec

from lostwax.kit.objects import S3Settings


class Settings(msgspec.Struct, frozen=True):
    http_port: int
    kafka_bootstrap: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    models_bucket: str
    http_host: str = "127.0.0.1"
    log_level: str = "INFO"
    telemetry: bool = True
    traces_share: float = 0.1
    instance: str = ""
    jobs_at_once: int = 2

    @property
    def s3(self) -> S3Settings:
        return S3Settings(self.s3_endpoint, self.s3_access_key, self.s3_secret_key)
