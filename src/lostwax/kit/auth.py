"""Credentials: API keys known by their digest, calls between services signed with each service's own key, and tokens
by which the staff's service says who somebody is."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from lostwax.contracts.staff import Role

Holder = TypeVar("Holder")

_CALL_LIFETIME_S = 60
_LEEWAY_S = 30
_STAFF = "staff"
_REMEMBERED_TOKENS = 5_000


class BadCredentials(Exception):
    """The credential is unknown, expired, malformed or meant for somebody else; the message says which."""


def new_api_key(prefix: str) -> str:
    """A fresh random key, 256 bits, told apart by its prefix when it leaks into a log."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def digest_of_key(key: str) -> bytes:
    """What is stored of a key. It is random and long, so a plain SHA-256 is enough."""
    return hashlib.sha256(key.encode()).digest()


class KeyCache(Generic[Holder]):
    """Who holds a key, remembered for `ttl_s` so that a request costs no query; a withdrawn key works that long, or
    until `forget` is called. One query looks a key up, however many requests wait for it."""

    def __init__(
        self, look_up: Callable[[bytes], Awaitable[Holder | None]], *, ttl_s: float = 10, most: int = 10_000
    ) -> None:
        self._look_up, self._ttl_s, self._most = look_up, ttl_s, most
        self._known: dict[bytes, tuple[float, Holder]] = {}
        self._under_way: dict[bytes, asyncio.Task[Holder | None]] = {}

    async def holder(self, key: str) -> Holder:
        """Raises BadCredentials for an unknown key."""
        digest = digest_of_key(key)
        hit = self._known.get(digest)
        if hit is not None and hit[0] > time.monotonic():
            return hit[1]
        task = self._under_way.get(digest)
        if task is None:
            task = self._under_way[digest] = asyncio.create_task(self._find(digest))
        found = await asyncio.shield(task)
        if found is None:
            raise BadCredentials("this key is not known, or was withdrawn")
        return found

    async def _find(self, digest: bytes) -> Holder | None:
        me = asyncio.current_task()
        began = time.monotonic()
        try:
            found = await self._look_up(digest)
            # Forgotten meanwhile: what was read may be older than what was heard of, so it answers but is not kept.
            if self._under_way.get(digest) is me:
                self._known.pop(digest, None)
                if found is not None:
                    if len(self._known) >= self._most:
                        self._known.clear()
                    self._known[digest] = (began + self._ttl_s, found)
            return found
        finally:
            if self._under_way.get(digest) is me:
                del self._under_way[digest]

    def forget(self, digest: bytes | None = None) -> None:
        """Look this key up again before it is next believed; None: every key."""
        if digest is None:
            self._known.clear()
            self._under_way.clear()
        else:
            self._known.pop(digest, None)
            self._under_way.pop(digest, None)


class ServiceSigner:
    """Signs this service's calls to others: EdDSA JWT, one minute, bound to the audience."""

    def __init__(self, service: str, private_jwk: str) -> None:
        self._service = service
        self._key = OKPKey.import_key(msgspec.json.decode(private_jwk))

    def token(self, audience: str) -> str:
        now = int(time.time())
        claims = {"iss": self._service, "aud": audience, "iat": now, "exp": now + _CALL_LIFETIME_S}
        return jwt.encode({"alg": "Ed25519", "kid": self._service}, claims, self._key, algorithms=["Ed25519"])


class ServiceVerifier:
    """Knows the public keys of all services (`kid` is the service's name)."""

    def __init__(self, service: str, public_jwks: str) -> None:
        self._service = service
        self._keys = KeySet.import_key_set(msgspec.json.decode(public_jwks))

    def caller(self, token: str) -> str:
        """Name of the service that signed the call to us. Raises BadCredentials."""
        return str(_verified(self._keys, token, self._service, "not a valid call between services")["iss"])


class Member(msgspec.Struct, frozen=True):
    """Somebody of the staff, as their account was at `version`."""

    staff_id: UUID
    name: str
    role: Role
    version: int


class StaffSigner:
    """Says who somebody is, for as long as a shift: EdDSA JWT of the service that owns the accounts."""

    def __init__(self, service: str, private_jwk: str) -> None:
        self._service = service
        self._key = OKPKey.import_key(msgspec.json.decode(private_jwk))

    def token(self, member: Member, now: datetime, lifetime: timedelta) -> tuple[str, datetime]:
        """A token for a member, and when it expires."""
        issued = int(now.timestamp())
        expires = issued + int(lifetime.total_seconds())
        claims = {
            "iss": self._service,
            "aud": _STAFF,
            "sub": str(member.staff_id),
            "name": member.name,
            "role": member.role.value,
            "ver": member.version,
            "iat": issued,
            "exp": expires,
        }
        signed = jwt.encode({"alg": "Ed25519", "kid": self._service}, claims, self._key, algorithms=["Ed25519"])
        return signed, datetime.fromtimestamp(expires, UTC)


class StaffVerifier:
    """Knows tokens of the staff: signed by `issuer` and by nobody else, meant for the staff's doors, not expired."""

    def __init__(self, public_jwks: str, issuer: str = "crm") -> None:
        self._keys = KeySet.import_key_set(msgspec.json.decode(public_jwks))
        self._issuer = issuer
        self._known: dict[str, tuple[float, Member]] = {}

    def member(self, token: str) -> Member:
        """Whom the token speaks of. Raises BadCredentials. A signature is checked once, the time always."""
        known = self._known.get(token)
        if known is not None:
            if known[0] + _LEEWAY_S < time.time():
                del self._known[token]
                raise BadCredentials("the token has expired")
            return known[1]
        claims = _verified(self._keys, token, _STAFF, "not a valid staff token")
        if claims["iss"] != self._issuer:
            raise BadCredentials(f"{claims['iss']} does not speak for the staff")
        try:
            member = Member(UUID(claims["sub"]), str(claims["name"]), Role(claims["role"]), int(claims["ver"]))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise BadCredentials(f"not a valid staff token: {error!r}") from None
        if len(self._known) >= _REMEMBERED_TOKENS:
            self._known.clear()
        self._known[token] = (float(claims["exp"]), member)
        return member


def _verified(keys: KeySet, token: str, audience: str, otherwise: str) -> dict[str, Any]:
    """The claims of a token of any service, signed by that service's own key. Raises BadCredentials."""
    try:
        decoded = jwt.decode(token, keys, algorithms=["Ed25519"])
        claims = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )
        claims.validate(decoded.claims)
    except (JoseError, ValueError) as error:
        raise BadCredentials(f"{otherwise}: {error}") from None
    if decoded.header.get("kid") != decoded.claims["iss"]:
        raise BadCredentials("signed with another service's key")
    return decoded.claims
