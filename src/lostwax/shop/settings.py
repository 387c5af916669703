"""Settings of the shop, from the environment."""

from typing import Annotated

from msgspec import Meta

from lostwax.channel.settings import ClientsSettings


class Settings(ClientsSettings, frozen=True, kw_only=True):
    crm_url: str
    # New guests, sign-ups, sign-ins and looks by a link from one address: a minute in the long run, and at once.
    entries_per_minute: Annotated[float, Meta(gt=0)] = 60
    entries_burst: Annotated[int, Meta(ge=1)] = 60
    # Of guessing passwords: each step more takes twice the time and memory; 15 is 32 MiB and 0.3 s.
    password_cost: Annotated[int, Meta(ge=10, le=20)] = 15
    # Where letters to customers go: smtp://user:password@host:587 or smtps://..; empty: they wait.
    smtp_url: str = ""
    smtp_sender: str = "shop@localhost"
    # Where customers reach the links in those letters.
    public_url: str = "http://localhost"
