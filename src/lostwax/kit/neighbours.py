"""Another service's HTTP API, called with this service's own key."""

from typing import Any

import httpx

from lostwax.kit.auth import ServiceSigner
from lostwax.kit.problems import try_later


class Neighbour:
    """The service `name` at `url`. One that does not answer, or not sensibly, is a 503 problem that says so."""

    def __init__(self, name: str, url: str, signer: ServiceSigner, *, timeout_s: float = 5) -> None:
        self._name = name
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout_s)
        self._signer = signer

    async def call(
        self, method: str, path: str, *, expected: tuple[int, ...] = (200,), missing: str, **arguments: Any
    ) -> httpx.Response:
        """The answer, of a status that was `expected`. Raises the 503 Problem; `missing` says what that costs."""
        headers = {"Authorization": f"Bearer {self._signer.token(self._name)}", **arguments.pop("headers", {})}
        try:
            response = await self._http.request(method, path, headers=headers, **arguments)
        except httpx.TransportError:
            raise try_later(f"{self._name} does not answer: {missing}", after_s=5, code=f"{self._name}-away") from None
        if response.status_code not in expected:
            detail = f"{self._name} answered {response.status_code}: {missing}"
            raise try_later(detail, after_s=5, code=f"{self._name}-away")
        return response

    async def close(self) -> None:
        await self._http.aclose()
