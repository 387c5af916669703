"""The client's own journal of acknowledged orders: one JSON line for each 202, written when it came."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import msgspec


class Acknowledged(msgspec.Struct, frozen=True):
    """An order that a client was told is accepted. `submission` is what the client meant by it: its Idempotency-Key."""

    order_id: UUID
    account: UUID
    submission: str


class Journal:
    """Appends to the file; each line is handed to the system before `write` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, entry: Acknowledged) -> None:
        self._file.write(msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> Iterator[Acknowledged]:
    """Entries of a journal. Raises msgspec.DecodeError for a line that is none; a cut last line was never told on."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield msgspec.json.decode(line, type=Acknowledged)
