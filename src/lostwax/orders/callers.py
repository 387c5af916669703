"""Which services may call Orders, and for what."""

from lostwax.contracts import topics
from lostwax.kit.service_calls import CONSOLE

CHANNELS = topics.ORDER_REQUESTS.written_by
"""Where orders come from."""

READERS = (*CHANNELS, "mes", CONSOLE)
"""May see any order, and get any model: each answers to people who may."""

KEEPERS = (*CHANNELS, CONSOLE)
"""May put models into the store; sellers propose revisions of a model through the CRM."""
