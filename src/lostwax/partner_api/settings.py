"""Settings of the partner API, from the environment."""

from lostwax.channel.settings import ClientsSettings


class Settings(ClientsSettings, frozen=True, kw_only=True):
    # Web hooks may go to this machine itself, by http too: for tests and local stacks only.
    hooks_to_loopback: bool = False
