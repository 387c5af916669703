"""Letters of the desk to customers: a layout's link, and reminders when nobody answers. `kit/mail.py` sends them."""

import asyncio
import logging
from datetime import timedelta
from uuid import UUID

from lostwax.contracts.ids import new_id
from lostwax.crm import layouts, mail_store, store
from lostwax.crm.handlers import Office
from lostwax.crm.layouts import Sent
from lostwax.kit.auth import Member
from lostwax.kit.mail import Letter, filled, write
from lostwax.kit.postgres import UNREACHABLE, Connection
from lostwax.kit.problems import Problem

log = logging.getLogger(__name__)

REMIND_AFTER = timedelta(days=3)
_MOST_LETTERS = 2
"""About an order, before a reminder: two reminders follow a letter, and no more."""

_REMIND_EVERY_S = 600.0


async def run(office: Office) -> None:
    """Remind, until cancelled."""
    while True:
        try:
            await remind(office)
        except UNREACHABLE as error:
            log.warning("database away", extra={"error": repr(error)})
        await asyncio.sleep(_REMIND_EVERY_S)


_WORDS = {
    "en": {
        "first": (
            "Your model is ready to be looked at",
            "Dear {name},\n\nplease look at the model of your piece, and say whether it is right so:\n\n{link}\n\n"
            "The link needs no account, is for you alone, and can be answered once.\n\nYours, {seller}\n",
        ),
        "reminder": (
            "Your model still waits for your answer",
            "Dear {name},\n\nwe go on with your piece as soon as you say that its model is right so:\n\n{link}\n\n"
            "The link in our letter before has ended; this one takes its place.\n\nYours, {seller}\n",
        ),
    },
    "ru": {
        "first": (
            "Макет вашего изделия готов",
            "Здравствуйте, {name}!\n\nПосмотрите, пожалуйста, макет вашего изделия и скажите, всё ли верно:\n\n"
            "{link}\n\n"
            "Регистрация не нужна. Ссылка только для вас, ответить по ней можно один раз.\n\nС уважением, {seller}\n",
        ),
        "reminder": (
            "Макет вашего изделия ждёт ответа",
            "Здравствуйте, {name}!\n\nМы продолжим работу, как только вы подтвердите, что макет верен:\n\n{link}\n\n"
            "Ссылка из прошлого письма больше не действует, вместо неё эта.\n\nС уважением, {seller}\n",
        ),
    },
}


async def send_layout(office: Office, member: Member, layout_id: UUID, kind: str = "first") -> Sent:
    """A fresh link, and the letter that takes it to the customer, in one transaction. Raises the 404 Problem, and the
    409 Problem when the customer may not be written to or the layout is settled."""

    async def letter(connection: Connection, sent: Sent) -> None:
        order_id = sent.layout.order_id
        to = await mail_store.customers_address(connection, order_id)
        if to is None:
            raise Problem(
                409,
                "may-not-be-written-to",
                "Nobody may be written to about this order",
                "Link the order to a customer who has a mail address and gave consent; or hand the link over yourself.",
            )
        subject, body = _WORDS[office.letters][kind]
        letter_id = new_id()
        text = filled(body, {"name": to[0], "seller": member.name})
        about = Letter(letter_id, to[1], subject, text, "layout", f"/l/{sent.token}", order_id, sent.expires_at)
        await write(connection, [about], office.now())
        await mail_store.set_writer(connection, letter_id, member.staff_id)

    return await layouts.send(office, member, layout_id, beside=letter)


async def remind(office: Office) -> int:
    """Write once more to customers who have not answered; returns to how many."""
    async with office.pool.acquire() as connection:
        due = await mail_store.to_remind(connection, office.now() - REMIND_AFTER, _MOST_LETTERS, 100)
    reminded = 0
    for layout_id, staff_id in due:
        async with office.pool.acquire() as connection:
            seller = await store.staff(connection, staff_id)
        assert seller is not None
        try:
            member = Member(seller.staff_id, seller.name, seller.role, seller.version)
            await send_layout(office, member, layout_id, "reminder")
            reminded += 1
        except Problem as problem:  # answered, or consent taken back, a moment ago
            log.info("not reminded", extra={"layout": str(layout_id), "why": problem.code})
    return reminded
