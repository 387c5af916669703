"""Passwords and keys of one stack: random, made at its first start, kept in `secrets.json` with mode 0600."""

import json
import secrets
from pathlib import Path
from typing import Any

import msgspec

from lostwax.local.setup import write_private

SERVICES = ("partner_api", "shop", "orders", "pricing", "mes", "crm", "telemetry", "reporting")
CONSOLE = "console"
"""The command line calls services under this name."""

S3_USERS = ("admin", "partner_api", "shop", "crm", "orders", "pricing")
ROLES = ("partner_api", "shop", "mes", "crm", "orders_control", "orders", "audit", "capture")


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
    """The credentials of the stack in `folder`; what it lacks, as a stack from before a service came, is made now."""
    path = folder / "secrets.json"
    known = msgspec.json.decode(path.read_bytes(), type=Credentials) if path.exists() else None
    if known is not None and _is_whole(known):
        return known
    made = _make()
    if known is not None:
        made = Credentials(
            passwords=made.passwords | known.passwords,
            redis=known.redis,
            s3=made.s3 | known.s3,
            service_keys=made.service_keys | known.service_keys,
        )
    write_private(path, msgspec.json.format(msgspec.json.encode(made)).decode())
    return made


def _is_whole(known: Credentials) -> bool:
    return (
        known.passwords.keys() >= set(ROLES)
        and known.s3.keys() >= set(S3_USERS)
        and known.service_keys.keys() >= {*SERVICES, CONSOLE}
    )


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
