"""Settings of the CRM, from the environment."""

from typing import Literal

from lostwax.channel.settings import DoorSettings


class Settings(DoorSettings, frozen=True, kw_only=True):
    # Where letters to customers go: smtp://user:password@host:587 or smtps://..; empty: they wait.
    smtp_url: str = ""
    smtp_sender: str = "sellers@localhost"
    # Where customers reach the links in those letters.
    public_url: str = "http://localhost"
    letters_language: Literal["en", "ru"] = "en"
    # Who of the staff gets a letter when a customer writes about an order; empty: the desk alone shows it.
    sellers_address: str = ""
