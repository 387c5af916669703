"""`python -m tests.kit.deaf_clients [ROUNDS]`: Kafka is stopped for 20 s and goes on, again and again, under ten
producers and ten consumers; names those that are deaf a minute later, and exits with 1.

To be run before another version of confluent-kafka is taken (docs/decisions/0052-the-kafka-client.md).
"""

import os
import signal
import sys
import threading
import time
from typing import Any

from confluent_kafka import Consumer, Producer, libversion

from lostwax.contracts.topics import ORDER_CHANGES
from lostwax.local.places import STACKS
from lostwax.local.stack import Stack

CLIENTS, STOPPED_S, BACK_WITHIN_S = 10, 20.0, 60.0


class Clients:
    """Producers and consumers, each in a thread. `heard`: when each was last answered, seconds since 1970."""

    def __init__(self, bootstrap: str) -> None:
        self._common: dict[str, Any] = {
            "bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 1000, "log_level": 0
        }  # fmt: skip
        self.heard = {f"{kind} {n}": 0.0 for kind in ("producer", "consumer") for n in range(CLIENTS)}
        for name in self.heard:
            work = self._produce if name.startswith("producer") else self._consume
            threading.Thread(target=work, args=(name,), daemon=True).start()

    def deaf_since(self, at: float) -> list[str]:
        return [name for name, heard in self.heard.items() if heard < at]

    def _produce(self, name: str) -> None:
        producer = Producer({**self._common, "enable.idempotence": True, "delivery.timeout.ms": 20_000})

        def told(error: Any, _: Any) -> None:
            if error is None:
                self.heard[name] = time.time()

        while True:
            if len(producer) < 100:
                producer.produce(ORDER_CHANGES.name, b"x", key=name, on_delivery=told)
            producer.poll(0.1)

    def _consume(self, name: str) -> None:
        group = {"group.id": name, "group.instance.id": name, "session.timeout.ms": 10_000}
        while True:
            consumer = Consumer({**self._common, **group, "auto.offset.reset": "latest"})
            consumer.subscribe([ORDER_CHANGES.name])
            fenced = False  # as named members are after such a time: they join anew
            while not fenced:
                for message in consumer.consume(100, 0.2):
                    error = message.error()
                    if error is None:
                        self.heard[name] = time.time()
                    fenced = fenced or (error is not None and error.fatal())
            consumer.close()


def main(rounds: int) -> int:
    """0: all came back each time."""
    print("librdkafka", libversion()[0])
    stack = Stack.start(STACKS / f"deaf-{os.getpid()}", owned=True, fresh=True, services=[], without=("opensearch",))
    try:
        clients = Clients(f"127.0.0.1:{stack.process('kafka').port}")
        kafka = stack.pid("kafka")
        for number in range(rounds + 1):
            began = time.time()
            if number:
                os.kill(kafka, signal.SIGSTOP)
                time.sleep(STOPPED_S)
                os.kill(kafka, signal.SIGCONT)
                began = time.time()
            while deaf := clients.deaf_since(began):
                if time.time() - began > BACK_WITHIN_S:
                    print(f"round {number}: deaf for {BACK_WITHIN_S:.0f} s: {', '.join(deaf)}")
                    return 1
                time.sleep(0.5)
            print(f"round {number}: all heard after {time.time() - began:.0f} s", flush=True)
        return 0
    finally:
        stack.down(remove=True)


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 12))  # threads may hang in the client
