"""Passwords and keys of one stack: random, made at its first start, kept in `secrets.json` with mode 0600."""

import json
import secrets
from pathlib import Path
from typing import Any

import msgspec

from lostwax.local.setup import write_private

SERVICES = ("partner_api", "orders", "pricing", "mes")
CONSOLE = "console"
"""The command line calls services under this name."""

S3_USERS = ("admin", "partner_api", "orders", "pricing")
ROLES = ("partner_api", "mes", "orders_control", "orders", "audit")


class S3Key(msgspec.Struct, frozen=True):
    """What an S3 client signs with."""

    access_key: str
    secret_key: str


class Credentials(msgspec.Struct, frozen=True):
    """`passwords` by database role, `service_keys` the private Ed25519 JWK by service."""

    passwords: dict[str, str]
    redis: str
    s3: dict[str, S3Key]
    service_keys: dict[str, dict[str, Any]]

    def public_keys(self) -> str:
        """The public halves of the service keys as a JWK set in JSON; `kid` is the service's name."""
        public = [{name: value for name, value in key.items() if name != "d"} for key in self.service_keys.values()]
        return json.dumps({"keys": public})


def load(folder: Path) -> Credentials:
    """The credentials of the stack in `folder`, made now if it has none yet."""
    path = folder / "secrets.json"
    if not path.exists():
        write_private(path, msgspec.json.format(msgspec.json.encode(_make())).decode())
    return msgspec.json.decode(path.read_bytes(), type=Credentials)


def _make() -> Credentials:
    from joserfc.jwk import OKPKey

    return Credentials(
        passwords={role: secrets.token_hex(16) for role in ROLES},
        redis=secrets.token_hex(16),
        s3={user: S3Key(secrets.token_hex(10).upper(), secrets.token_hex(20)) for user in S3_USERS},
        service_keys={
            name: dict(
                OKPKey.generate_key("Ed25519", {"kid": name, "use": "sig", "alg": "Ed25519"}, private=True).as_dict(
                    private=True
                )
            )
            for name in (*SERVICES, CONSOLE)
        },
    )
