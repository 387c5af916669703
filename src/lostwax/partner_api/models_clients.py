"""Orders' model store, as the partner API calls it."""

import httpx

from lostwax.kit.auth import ServiceSigner


class OrdersAway(Exception):
    """Orders does not answer, or not sensibly; worth trying again later."""


class NotInStore(Exception):
    """Orders has no such model."""


class ModelStore:
    """The model store, through Orders' API. The caller closes it."""

    def __init__(self, orders_url: str, signer: ServiceSigner) -> None:
        self._http = httpx.AsyncClient(base_url=orders_url, timeout=5)
        self._signer = signer

    async def link(self, sha256: str, name: str) -> str:
        """A link to a stored model for fifteen minutes, saved under `name`. Raises NotInStore, OrdersAway."""
        headers = {"Authorization": f"Bearer {self._signer.token('orders')}"}
        try:
            response = await self._http.get(f"/v1/models/{sha256}/link", params={"name": name}, headers=headers)
            if response.status_code == 404:
                raise NotInStore(sha256)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise OrdersAway(repr(error)) from error
        url: str = response.json()["url"]
        return url

    async def close(self) -> None:
        await self._http.aclose()
