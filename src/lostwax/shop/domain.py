"""Customers, guests, and how long they are known. Pure."""

import re
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

SESSION = timedelta(days=30)
GUEST_SESSION = timedelta(days=90)
"""A guest has nothing else to come back by."""

LINK = timedelta(days=90)
"""How long a link shows its order."""

SESSION_PREFIX, LINK_PREFIX, MAIL_PREFIX = "lws", "lwo", "lwm"

CONFIRM_FOR, PASSWORD_FOR = timedelta(days=3), timedelta(hours=1)
"""How long the links of letters work that confirm an address, and that set a new password."""

MOST_LETTERS, LETTERS_WITHIN = 3, timedelta(hours=1)
"""That can be asked for to one address."""

# One @, something before it, a host with a dot after it: whether mail arrives, only mail can tell.
_EMAIL = re.compile(r"[^\s@<>\"',;:\\()\[\]]{1,64}@[^\s@<>\"',;:\\()\[\]_/]+\.[^\s@<>\"',;:\\()\[\]_/.]{2,}")


class Customer(msgspec.Struct, frozen=True):
    """Somebody who buys. A guest has no password, and no e-mail before the first order."""

    customer_id: UUID
    created_at: datetime
    email: str | None = None
    name: str | None = None
    signed_up_at: datetime | None = None
    language: str = "en"
    confirmed_at: datetime | None = None

    @property
    def guest(self) -> bool:
        return self.signed_up_at is None


class Reader(msgspec.Struct, frozen=True):
    """To whom a letter goes. `confirmed`: by a letter before."""

    email: str
    name: str
    language: str
    confirmed: bool


class Session(msgspec.Struct, frozen=True):
    """A browser or program that came in, of which only the token's digest is kept. `agent`: what it calls itself."""

    session_id: UUID
    customer_id: UUID
    agent: str
    created_at: datetime
    expires_at: datetime


def tidy_email(text: str) -> str | None:
    """The address without what was typed around it; None for what cannot be one."""
    text = text.strip()
    return text if len(text) <= 254 and text.isprintable() and _EMAIL.fullmatch(text) else None


def session_lasts(*, guest: bool) -> timedelta:
    return GUEST_SESSION if guest else SESSION
