"""Passwords: scrypt with a salt of its own for each, a few at a time, so that guesses do not eat the processors."""

import asyncio
import base64
import hashlib
import hmac
import secrets

# OWASP's recommendation for scrypt at 2^15: 32 MiB and a third of a second of one core.
_R, _P = 8, 3
_SALT_BYTES, _LENGTH = 16, 32


def _scrypt(password: str, salt: bytes, cost: int) -> bytes:
    most = 256 * _R * 2**cost
    return hashlib.scrypt(password.encode(), salt=salt, n=2**cost, r=_R, p=_P, maxmem=most, dklen=_LENGTH)


class Passwords:
    """Hashes and compares at a `cost`: scrypt's n is two to that."""

    def __init__(self, *, cost: int, at_once: int = 2) -> None:
        self._cost = cost
        self._at_once = asyncio.Semaphore(at_once)
        self._nobodys = _shown(cost, bytes(_SALT_BYTES), bytes(_LENGTH))

    async def hashed(self, password: str) -> str:
        """What is stored of a password: `scrypt$<cost>$<salt>$<hash>`."""
        salt = secrets.token_bytes(_SALT_BYTES)
        async with self._at_once:
            return _shown(self._cost, salt, await asyncio.to_thread(_scrypt, password, salt, self._cost))

    async def fits(self, password: str, stored: str | None) -> bool:
        """Whether this is the password; takes as long when there is none (None), so that time tells nobody who is a
        customer."""
        _, cost, salt, wanted = (stored or self._nobodys).split("$")
        async with self._at_once:
            made = await asyncio.to_thread(_scrypt, password, base64.b64decode(salt), int(cost))
        return hmac.compare_digest(made, base64.b64decode(wanted)) and stored is not None


def _shown(cost: int, salt: bytes, made: bytes) -> str:
    return f"scrypt${cost}${base64.b64encode(salt).decode()}${base64.b64encode(made).decode()}"
