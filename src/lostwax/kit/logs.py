"""JSON logs, one object a line on standard error, with service and trace id."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from lostwax.kit import tracing

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}
"""What is no `extra=`, or, of uvicorn's, the message once more for a terminal."""


class JsonFormatter(logging.Formatter):
    """What is passed as `extra=` becomes fields of the object."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (trace := tracing.trace_id()) is not None:
            entry["trace"] = trace
        entry |= extra_fields(record)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return self._encoder.encode(entry).decode()


def extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was passed as `extra=`."""
    return {name: value for name, value in record.__dict__.items() if name not in _PLAIN}


def configure(service: str, level: str) -> None:
    """Send all logging of this process to standard error as JSON. `level` is a name such as INFO."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("uvicorn.access", "botocore", "httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
