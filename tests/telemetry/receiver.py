"""A real receiver of alerts, in this process."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from lostwax.kit.webhooks import new_secret


class Receiver:
    """Remembers every signed notice that it is sent, and refuses to take the first so many. Close it with `close`."""

    def __init__(self) -> None:
        self.attempts: list[dict[str, Any]] = []
        self.failing = 0
        self.secret = new_secret()
        self.unsigned = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    outer.attempts.append(Webhook(outer.secret).verify(body, dict(self.headers)))
                except WebhookVerificationError:
                    outer.unsigned += 1
                    self.send_response(401)
                    self.end_headers()
                    return
                outer.failing -= 1
                self.send_response(503 if outer.failing >= 0 else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def of(self, rule: str) -> list[dict[str, Any]]:
        return [a for a in self.attempts if a["alert"]["rule"] == rule]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
