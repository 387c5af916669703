"""Signatures of web hooks, by Standard Webhooks: whoever is sent one can check who sent it, and when."""

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook

_SHORTEST = 24
"""Bytes, as Standard Webhooks has it."""


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str) -> None:
    """Raises ValueError for what cannot sign."""
    try:
        signs = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) >= _SHORTEST
    except ValueError:
        signs = False
    if not secret.startswith("whsec_") or not signs:
        raise ValueError(f"a secret is whsec_ and at least {_SHORTEST} random bytes in base64")


def signed_headers(secrets_: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks, with a signature by each secret. `at` is in UTC."""
    text = body.decode()
    signatures = [Webhook(secret).sign(msg_id=message_id, timestamp=at, data=text) for secret in secrets_]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
