"""Robots that agree models and talk: a seller who sends layouts and writes to customers of the shop, and customers who
do what the letters that come to them ask for."""

import asyncio
import random
import re
from typing import Any

from lostwax.demo.robots import Door, Events, told
from lostwax.shop.letters import WORDS

_LAYOUT = re.compile(r'href="(/o/[^"/]+/layouts/[^"]+)"')
MOST_ORDERS = 12
"""About how many orders the seller talks, however large a demo is."""


class Talker:
    """A seller: every other order of the shop gets a layout, the rest a question; who answers is answered."""

    def __init__(self, url: str, token: str, chance: random.Random, events: Events) -> None:
        self._door = Door(url, token)
        self._chance, self._events = chance, events
        self._begun: list[str] = []
        self._answered: set[str] = set()

    async def work(self, pause_s: float = 0.5) -> None:
        """Work until cancelled."""
        while True:
            if len(self._begun) < MOST_ORDERS:
                asked = {"channel": "shop", "limit": 20}
                lines = told(await self._door.call("GET", "/v1/orders", params=asked), 200)["orders"]
                for line in lines:
                    if line["order_id"] not in self._begun and len(self._begun) < MOST_ORDERS:
                        self._begun.append(line["order_id"])
                        await self._begin(line["order_id"], layout=len(self._begun) % 2 == 1)
            await asyncio.gather(*(self._answer(order_id) for order_id in self._begun))
            await asyncio.sleep(pause_s)

    async def _begin(self, order_id: str, *, layout: bool) -> None:
        if not layout:
            question = {"text": "Shall we polish the inside as well?", "asks": True}
            await self._say(order_id, question, "question")
            return
        made = await self._door.call("POST", f"/v1/orders/{order_id}/layouts", json={"note": "as you sent it"})
        if made.status_code == 201:
            told(await self._door.call("POST", f"/v1/layouts/{made.json()['layout_id']}/send"), 200)
            self._events.layouts_sent += 1

    async def _say(self, order_id: str, body: dict[str, Any], key: str) -> None:
        path, headers = f"/v1/orders/{order_id}/messages", {"Idempotency-Key": key}
        told(await self._door.call("POST", path, json=body, headers=headers), 201)
        self._events.messages += 1

    async def _answer(self, order_id: str) -> None:
        if order_id in self._answered:
            return
        said = told(await self._door.call("GET", f"/v1/orders/{order_id}/messages"), 200)["messages"]
        if said and said[-1]["side"] == "customer":
            self._answered.add(order_id)
            await self._say(order_id, {"text": "Thank you, so we do it."}, "thanks")

    @property
    def settled(self) -> bool:
        """Everybody who was asked has answered and was thanked."""
        return set(self._begun) == self._answered

    async def close(self) -> None:
        await self._door.close()


class Reader:
    """A customer of the shop at their mail: confirms the address, looks at layouts and approves or remarks, answers
    questions."""

    def __init__(self, mail_url: str, email: str, name: str, chance: random.Random, events: Events) -> None:
        self._mail = Door(mail_url, None)
        self._email, self._name, self._chance, self._events = email, name, chance, events
        self._read = 0

    async def work(self, pause_s: float = 0.5) -> None:
        """Read until cancelled."""
        while True:
            letters = told(await self._mail.call("GET", "/letters.json", params={"to": self._email}), 200)["letters"]
            for letter in letters:
                if letter["number"] > self._read:
                    self._read = letter["number"]
                    await self._follow(letter["subject"], letter["links"][0])
            await asyncio.sleep(pause_s)

    async def _follow(self, subject: str, link: str) -> None:
        if subject == WORDS["confirm"]["en"].subject:
            answered = await self._mail.call("POST", link)
            self._events.confirmed += answered.status_code == 200
        elif subject.startswith(WORDS["layout"]["en"].subject.partition("{")[0]):
            await self._look(link)
        elif subject.startswith(WORDS["message"]["en"].subject.partition("{")[0]):
            page = (await self._mail.call("GET", link)).text
            if "Shall we polish" in page and "Yes, please." not in page:
                answered = await self._mail.call("POST", link, data={"text": "Yes, please.", "key": "answer"})
                self._events.answers += answered.status_code == 303

    async def _look(self, link: str) -> None:
        page = await self._mail.call("GET", link)
        path = _LAYOUT.search(page.text)
        if path is None:
            return
        shown = await self._mail.call("GET", link[: link.index("/o/")] + path[1])
        if shown.status_code != 303:  # a newer one, or settled by the other letter
            return
        form = {"do": "approve", "name": self._name}
        if approve := self._chance.random() < 0.7 or not self._events.layouts_approved:
            form["text"] = ""
        else:
            form |= {"do": "answer", "text": "A little wider, please."}
        answered = await self._mail.call("POST", shown.headers["location"], data=form)
        if answered.status_code == 303:
            self._events.layouts_approved += approve
            self._events.layouts_remarked += not approve

    async def close(self) -> None:
        await self._mail.close()
