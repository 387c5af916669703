"""What a guess costs: failed sign-ins are counted for each address, and past a limit it has to wait.

Badges are random, 256 bits: no number of guesses finds one. This only keeps guessers from wasting the database's time,
so a count in each process is enough, and a stranger behind the same address is slowed with them.
"""

import math
from collections import OrderedDict

MOST, WINDOW_S = 30, 60.0
_ADDRESSES = 10_000


class Failures:
    """Failed sign-ins: an address may fail `most` times at once, and once more every `window_s` / `most` seconds."""

    def __init__(self, *, most: int = MOST, window_s: float = WINDOW_S, addresses: int = _ADDRESSES) -> None:
        self._most, self._window_s, self._addresses = most, window_s, addresses
        # Of each address until when its failures count; the one that failed last is the last.
        self._until: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: str, now: float) -> int:
        """Whole seconds until this address may try again; 0: now."""
        over = self._until.get(address, now) - now - (self._window_s - self._window_s / self._most)
        return max(0, math.ceil(over - 1e-6))

    def failed(self, address: str, now: float) -> None:
        self._until[address] = max(self._until.get(address, now), now) + self._window_s / self._most
        self._until.move_to_end(address)
        if len(self._until) > self._addresses:
            self._until.popitem(last=False)
