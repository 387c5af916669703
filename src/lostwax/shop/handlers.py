"""Use cases of customers, each one transaction: coming in, sessions, and links that show an order."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from lostwax.channel import store as requests
from lostwax.channel.clients import Requests
from lostwax.channel.domain import Client
from lostwax.contracts.ids import new_id
from lostwax.kit.auth import digest_of_key, new_api_key
from lostwax.kit.mail import write
from lostwax.kit.postgres import UNREACHABLE, Connection, Pool
from lostwax.kit.problems import Problem, not_found, unauthorized
from lostwax.shop import letters, store
from lostwax.shop.domain import (
    CONFIRM_FOR,
    LETTERS_WITHIN,
    LINK,
    LINK_PREFIX,
    MAIL_PREFIX,
    MOST_LETTERS,
    PASSWORD_FOR,
    SESSION_PREFIX,
    Customer,
    Reader,
    Session,
    session_lasts,
    tidy_email,
)
from lostwax.shop.passwords import Passwords

log = logging.getLogger(__name__)

REQUESTS = Requests(requests.own_views_from, requests.count_from, store.customers_with_older, requests.own_views)
"""What customers' orders in Redis are built from."""

_SWEEP_EVERY_S = 3600.0
_ENDED_KEPT = timedelta(days=30)
_BATCH = 1000


class Entrance:
    """What the use cases need: database, passwords and clock."""

    def __init__(self, pool: Pool, passwords: Passwords, now: Callable[[], datetime]) -> None:
        self.pool, self.passwords, self.now = pool, passwords, now


def client_of(customer: Customer) -> Client:
    """What the rest of the workshop is told of a customer: nothing that says who they are."""
    return Client(customer.customer_id, "guest of the shop" if customer.guest else "customer of the shop")


async def _begin_session(connection: Connection, customer: Customer, agent: str, now: datetime) -> tuple[Session, str]:
    token = new_api_key(SESSION_PREFIX)
    expires_at = now + session_lasts(guest=customer.guest)
    session = Session(new_id(), customer.customer_id, agent, now, expires_at)
    await store.add_session(connection, digest_of_key(token), session)
    return session, token


async def enter_as_guest(entrance: Entrance, agent: str, language: str) -> tuple[Customer, Session, str]:
    """A new guest: who they are, their session, and its token."""
    now = entrance.now()
    async with entrance.pool.acquire() as connection, connection.transaction():
        guest = await store.add_guest(connection, new_id(), language, now)
        return guest, *await _begin_session(connection, guest, agent, now)


def _address(email: str) -> str:
    tidy = tidy_email(email)
    if tidy is None:
        raise Problem(422, "email-misfit", "This is no e-mail address", "Give one like name@example.org.")
    return tidy


async def sign_up(
    entrance: Entrance,
    email: str,
    name: str,
    password: str,
    agent: str,
    language: str,
    guest: tuple[Session, Customer] | None,
) -> tuple[Customer, Session, str]:
    """A new account, whose address a letter asks to confirm. A guest who signs up keeps what they have, and their
    guest's session ends. All is alike for an address that has an account: only its owner is told, by the letter."""
    address = _address(email)
    stored = await entrance.passwords.hashed(password)
    now = entrance.now()
    async with entrance.pool.acquire() as connection, connection.transaction():
        customer_id = new_id() if guest is None else guest[1].customer_id
        customer = await store.sign_up(connection, customer_id, address, name, stored, language, now)
        if customer is None:
            raise Problem(409, "signed-up", "You have an account already", "Sign out first to make another.")
        if guest is not None:
            await store.revoke_session(connection, customer_id, guest[0].session_id)
        await _ask_to_confirm(connection, customer, now)
        return customer, *await _begin_session(connection, customer, agent, now)


async def _may_be_written_to(connection: Connection, address: str, now: datetime) -> bool:
    """Whether one letter more may be asked for to this address. Counted alike for those that are known and those that
    are not, so that neither answer nor time tells which."""
    digest = hashlib.sha256(address.lower().encode()).digest()
    return await store.asked_for(connection, digest, now, now - LETTERS_WITHIN) <= MOST_LETTERS


async def _ask_to_confirm(connection: Connection, customer: Customer, now: datetime) -> None:
    """The letter that follows a sign-up: to confirm, or, where the address has an account, that says so."""
    assert customer.email is not None
    if not await _may_be_written_to(connection, customer.email, now):
        return
    taken = await store.account_of(connection, customer.email)
    reader = Reader(customer.email, "", customer.language, confirmed=False)
    if taken is not None and taken != customer.customer_id:
        await write(connection, [letters.letter("known", new_id(), reader, "/lost-password")], now)
        return
    path = await _mail_link(connection, "confirm", customer, now, CONFIRM_FOR)
    await write(connection, [letters.letter("confirm", new_id(), reader, path, until=now + CONFIRM_FOR)], now)


async def _mail_link(connection: Connection, purpose: str, customer: Customer, now: datetime, lasts: timedelta) -> str:
    """The path of a link that works once."""
    assert customer.email is not None
    token = new_api_key(MAIL_PREFIX)
    await store.add_mail_link(
        connection, digest_of_key(token), purpose, customer.customer_id, customer.email, now, now + lasts
    )
    return f"/{purpose}/{token}"


async def ask_again_to_confirm(entrance: Entrance, customer: Customer) -> None:
    """Another letter that confirms an account's address. Raises the 409 Problem."""
    if customer.guest:
        raise Problem(409, "no-account", "A guest has no account to confirm", "Sign up first.")
    if customer.confirmed_at is not None:
        return
    async with entrance.pool.acquire() as connection, connection.transaction():
        await _ask_to_confirm(connection, customer, entrance.now())


async def opened_letter(entrance: Entrance, purpose: str, token: str) -> None:
    """Looks at the link of a letter without using it, as mail programs do by themselves. Raises the 404 Problem for
    none, the 410 Problem for one that is used or over."""
    async with entrance.pool.acquire() as connection:
        await _usable(connection, purpose, token, entrance.now())


async def _usable(
    connection: Connection, purpose: str, token: str, now: datetime, *, lock: bool = False
) -> store.MailLink:
    found = await store.mail_link(connection, digest_of_key(token), lock=lock) if len(token) <= 100 else None
    if found is None or found.purpose != purpose:
        raise Problem(404, "not-found", "No such link", "Look whether it was copied whole.")
    if found.used_at is not None or found.expires_at <= now:
        raise Problem(410, "link-ended", "This link does not work any more", "Ask for a new letter.")
    return found


async def confirm(entrance: Entrance, token: str) -> None:
    """The address of an account is its holder's, by the link of a letter. Raises the 404, 409 and 410 Problems."""
    now = entrance.now()
    async with entrance.pool.acquire() as connection, connection.transaction():
        link = await _usable(connection, "confirm", token, now, lock=True)
        await store.use_mail_link(connection, digest_of_key(token), now)
        await _confirmed(connection, link, now)


async def _confirmed(connection: Connection, link: store.MailLink, now: datetime) -> None:
    taken = Problem(409, "email-taken", "This address has an account", "Sign in to it, or ask for a new password.")
    try:
        async with connection.transaction():
            if not await store.set_confirmed(connection, link.customer_id, link.email, now):
                raise Problem(410, "link-ended", "This link does not work any more", "Ask for a new letter.")
    except asyncpg.UniqueViolationError:
        raise taken from None


async def ask_for_password(entrance: Entrance, email: str, language: str) -> None:
    """A letter with a link that sets a new password, if this address has an account. Whoever asks learns nothing."""
    address, now = tidy_email(email), entrance.now()
    if address is None:
        return
    async with entrance.pool.acquire() as connection, connection.transaction():
        allowed = await _may_be_written_to(connection, address, now)
        found = await store.account_of(connection, address) or await store.newest_unconfirmed(connection, address)
        if not allowed or found is None:
            return
        customer = await store.customer(connection, found)
        assert customer is not None
        assert customer.email is not None
        path = await _mail_link(connection, "password", customer, now, PASSWORD_FOR)
        reader = Reader(customer.email, customer.name or "", language, customer.confirmed_at is not None)
        await write(connection, [letters.letter("password", new_id(), reader, path, until=now + PASSWORD_FOR)], now)


async def set_lost_password(entrance: Entrance, token: str, password: str) -> None:
    """A new password by the link of a letter, which proves the address, too; all sessions end. Raises the 404, 409 and
    410 Problems."""
    await opened_letter(entrance, "password", token)
    stored = await entrance.passwords.hashed(password)
    now = entrance.now()
    async with entrance.pool.acquire() as connection, connection.transaction():
        link = await _usable(connection, "password", token, now, lock=True)
        await store.use_mail_link(connection, digest_of_key(token), now)
        await _confirmed(connection, link, now)
        await store.set_password(connection, link.customer_id, stored)
        await store.revoke_other_sessions(connection, link.customer_id, None)


async def sign_in(entrance: Entrance, email: str, password: str, agent: str) -> tuple[Customer, Session, str]:
    """Raises the 401 Problem, alike for an unknown address and a wrong password.

    Beside the account that an address was confirmed for, whoever signed up last by it may come in: were it otherwise, a
    sign-up and a sign-in with the same password would tell whether there is such an account."""
    async with entrance.pool.acquire() as connection:
        candidates = [
            await store.account_of(connection, email.strip()),
            await store.newest_unconfirmed(connection, email.strip()),
        ]
        known = [None if one is None else await store.password_of(connection, one) for one in candidates]
    # Both, always: time tells nobody either.
    fitting = [
        one
        for one, stored in zip(candidates, known, strict=True)
        if await entrance.passwords.fits(password, stored) and one is not None
    ]
    if not fitting:
        raise unauthorized("This address and password do not belong together.")
    async with entrance.pool.acquire() as connection, connection.transaction():
        customer = await store.customer(connection, fitting[0])
        assert customer is not None
        return customer, *await _begin_session(connection, customer, agent, entrance.now())


async def change_password(
    entrance: Entrance, customer: Customer, session: Session, password: str, new_password: str
) -> None:
    """All other sessions end: whoever had the old one is out."""
    if customer.email is None or customer.guest:
        raise Problem(409, "no-password", "A guest has no password", "Sign up first.")
    async with entrance.pool.acquire() as connection:
        found = await store.password_of(connection, customer.customer_id)
    if found is None or not await entrance.passwords.fits(password, found):
        raise Problem(403, "wrong-password", "This is not your password", "Type the password that you have now.")
    stored = await entrance.passwords.hashed(new_password)
    async with entrance.pool.acquire() as connection, connection.transaction():
        await store.set_password(connection, customer.customer_id, stored)
        await store.revoke_other_sessions(connection, customer.customer_id, session.session_id)


async def set_contact(entrance: Entrance, customer: Customer, email: str, name: str, language: str) -> Customer:
    """Where a guest is reached, and what anybody is called. An account's address stays."""
    address = _address(email)
    if not customer.guest and address.lower() != (customer.email or "").lower():
        raise Problem(409, "email-fixed", "The address of an account stays", "For another, make another account.")
    async with entrance.pool.acquire() as connection:
        await store.set_contact(connection, customer.customer_id, address if customer.guest else None, name, language)
        changed = await store.customer(connection, customer.customer_id)
    assert changed is not None
    return changed


async def sessions(entrance: Entrance, customer: Customer) -> list[Session]:
    """Where a customer is signed in, newest first."""
    async with entrance.pool.acquire() as connection:
        return await store.sessions_of(connection, customer.customer_id, entrance.now())


async def revoke_session(entrance: Entrance, customer_id: UUID, session_id: UUID) -> None:
    async with entrance.pool.acquire() as connection:
        if not await store.revoke_session(connection, customer_id, session_id):
            raise not_found("session")


# -- links that show one order ----------------------------------------------------------------------------------------


async def make_link(entrance: Entrance, client: Client, order_id: UUID) -> tuple[str, datetime]:
    """A link's token for one of the customer's orders, and when it ends."""
    token, now = new_api_key(LINK_PREFIX), entrance.now()
    async with entrance.pool.acquire() as connection:
        if await requests.request(connection, client.client_id, order_id) is None:
            raise not_found("order")
        await store.add_link(connection, digest_of_key(token), order_id, client.client_id, now, now + LINK)
    return token, now + LINK


async def revoke_links(entrance: Entrance, client: Client, order_id: UUID) -> None:
    async with entrance.pool.acquire() as connection:
        if await requests.request(connection, client.client_id, order_id) is None:
            raise not_found("order")
        await store.revoke_links(connection, client.client_id, order_id)


async def linked_order(entrance: Entrance, token: str) -> tuple[Client, store.LinkRow]:
    """Whose order a link shows, and what it may. Raises the 404 Problem for none, the 410 Problem for one that has
    ended."""
    async with entrance.pool.acquire() as connection:
        found = await store.link(connection, digest_of_key(token))
    if found is None:
        raise Problem(404, "not-found", "No such link", "Ask whoever gave it to you for the whole of it.")
    if found.revoked_at is not None or found.expires_at <= entrance.now():
        why = "It was withdrawn." if found.revoked_at is not None else f"It ended on {found.expires_at:%Y-%m-%d}."
        raise Problem(410, "link-ended", "This link shows nothing any more", f"{why} Ask the customer for a new one.")
    return Client(found.customer_id, "link"), found


async def sweep(entrance: Entrance) -> None:
    """Forget sessions and links a month after their end, and with the last session of an address that nobody confirmed
    whoever left nothing behind; until cancelled. Harmless in several processes at once."""
    while True:
        try:
            async with entrance.pool.acquire() as connection:
                while await store.sweep(connection, entrance.now() - _ENDED_KEPT, _BATCH) == _BATCH:
                    pass
        except UNREACHABLE as error:
            log.warning("ended sessions were not swept", extra={"error": repr(error)})
        await asyncio.sleep(_SWEEP_EVERY_S)
