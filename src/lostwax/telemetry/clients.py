"""OpenSearch over HTTP: what the service asks of it, and what its troubles are called here."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import httpx
import msgspec

from lostwax.kit.webhooks import signed_headers
from lostwax.telemetry import indices
from lostwax.telemetry.documents import Document
from lostwax.telemetry.indices import BackingIndex, Stream

log = logging.getLogger(__name__)

_BULK_BYTES = 4_000_000
_ALREADY_THERE, _BUSY = 409, (429, 503)
_KEPT = "lostwax-alerts"
_NO_STREAM = "index_not_found_exception"  # yet: `prepare` makes it


class SearchAway(Exception):
    """OpenSearch does not answer, or has more to do than it takes. What was asked for may be asked again."""


class BadQuery(Exception):
    """OpenSearch does not take the query; the text is its reason."""


class Refusal(msgspec.Struct, frozen=True):
    """A document that OpenSearch will never take: `number` is its place in what was given to `add`."""

    number: int
    reason: str


class Kept(msgspec.Struct, frozen=True):
    """The document of alerts, and the mark by which only who has read it replaces it."""

    text: str
    number: int
    term: int


class OpenSearch:
    """Close it with `close`. Raises SearchAway from every call that OpenSearch does not answer sensibly."""

    def __init__(self, url: str, *, user: str = "", password: str = "", timeout_s: float = 30) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(timeout_s, connect=3),
            auth=(user, password) if user else None,
            headers={"Content-Type": "application/json"},
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, method: str, path: str, body: Any = None, **parameters: str | int) -> Any:
        """The answer, decoded. Raises BadQuery for what it refuses (HTTP 4xx)."""
        content = None if body is None else msgspec.json.encode(body)
        return await self._call(method, path, content, parameters)

    async def _call(self, method: str, path: str, content: bytes | None, parameters: dict[str, str | int]) -> Any:
        try:
            response = await self._http.request(method, path, content=content, params=parameters)
        except httpx.HTTPError as error:
            raise SearchAway(f"OpenSearch does not answer: {error!r}") from None
        if response.status_code >= 500 or response.status_code in _BUSY:
            raise SearchAway(f"OpenSearch answers {response.status_code}: {response.text[:500]}")
        if response.status_code == 404 and _NO_STREAM in response.text:
            raise SearchAway(f"OpenSearch is not prepared yet: {response.text[:500]}")
        if response.status_code >= 400:
            raise BadQuery(f"{response.status_code}: {response.text[:500]}")
        return msgspec.json.decode(response.content) if response.content else None

    async def is_well(self) -> str | None:
        """None when it answers and can be written to, else what is wrong."""
        try:
            health = await self.call("GET", "/_cluster/health", timeout="1s")
        except (SearchAway, BadQuery) as error:
            return str(error)
        return "its cluster is red" if health["status"] == "red" else None

    async def prepare(self, streams: Sequence[Stream], *, replicas: int) -> None:
        """Templates and streams as this version wants them; what is there already stays, and new fields join it."""
        for stream in streams:
            made = indices.template(stream, replicas=replicas)
            await self.call("PUT", f"/_index_template/{stream.name}", made)
            try:
                await self.call("PUT", f"/_data_stream/{stream.name}")
            except BadQuery as error:
                if "resource_already_exists" not in str(error):
                    raise
                await self.call(
                    "PUT", f"/{stream.name}/_mapping", {"properties": made["template"]["mappings"]["properties"]}
                )

    async def prepare_kept(self, *, replicas: int) -> None:
        """A place for the one document of alerts."""
        settings = {"number_of_shards": 1, "number_of_replicas": replicas}
        try:
            await self.call("PUT", f"/{_KEPT}", {"settings": settings, "mappings": {"dynamic": False}})
        except BadQuery as error:
            if "resource_already_exists" not in str(error):
                raise

    async def kept(self) -> Kept | None:
        """None: there is none yet."""
        try:
            found = await self.call("GET", f"/{_KEPT}/_doc/state")
        except (BadQuery, SearchAway) as error:
            if str(error).startswith("404") or _NO_STREAM in str(error):
                return None
            raise
        return Kept(found["_source"]["text"], found["_seq_no"], found["_primary_term"])

    async def keep(self, text: str, before: Kept | None) -> Kept | None:
        """Replace what was read as `before`; None: somebody else was first, and nothing was changed."""
        mark: dict[str, str | int] = {"op_type": "create"}
        if before is not None:
            mark = {"if_seq_no": before.number, "if_primary_term": before.term}
        try:
            done = await self.call("PUT", f"/{_KEPT}/_doc/state", {"text": text}, **mark)
        except BadQuery as error:
            if str(error).startswith(f"{_ALREADY_THERE}"):
                return None
            raise
        return Kept(text, done["_seq_no"], done["_primary_term"])

    async def add(self, stream: Stream, documents: Sequence[Document]) -> list[Refusal]:
        """Store documents, those that are there already but once. Returns those that can never be stored."""
        refused: list[Refusal] = []
        start = 0
        while start < len(documents):
            lines: list[bytes] = []
            size, end = 0, start
            while end < len(documents) and (size < _BULK_BYTES or end == start):
                document = documents[end]
                lines += (b'{"create":{"_id":"' + document.id.encode() + b'"}}', document.source)
                size += len(document.source)
                end += 1
            answer = await self._call(
                "POST",
                f"/{stream.name}/_bulk",
                b"\n".join(lines) + b"\n",
                {"filter_path": "errors,items.*.status,items.*.error"},
            )
            if answer.get("errors"):
                refused += _refused(answer["items"], start)
            start = end
        return refused

    async def backing_indices(self, stream: Stream) -> list[BackingIndex]:
        """The indices behind a stream, oldest first."""
        (found,) = (await self.call("GET", f"/_data_stream/{stream.name}"))["data_streams"]
        names = [index["index_name"] for index in found["indices"]]
        backing = []
        for name in names:
            asked = {"size": 0, "aggs": {"newest": {"max": {"field": "@timestamp"}}}}
            answer = await self.call("POST", f"/{name}/_search", asked)
            backing.append(
                BackingIndex(name, name == names[-1], indices.at_ms(answer["aggregations"]["newest"]["value"]))
            )
        return backing

    async def roll_over(self, stream: Stream, conditions: Any) -> bool:
        """Begin a new backing index if the conditions hold; whether it did."""
        return bool((await self.call("POST", f"/{stream.name}/_rollover", conditions))["rolled_over"])

    async def delete(self, index: str) -> None:
        await self.call("DELETE", f"/{index}")


class Hook:
    """Where alerts are told, signed with `secret` (Standard Webhooks). Close it with `close`."""

    def __init__(self, url: str, secret: str, now: Callable[[], datetime]) -> None:
        self._url, self._secret, self._now = url, secret, now
        self._http = httpx.AsyncClient(timeout=5, headers={"User-Agent": "Lostwax-Alerts/1"})

    async def close(self) -> None:
        await self._http.aclose()

    async def tell(self, notice_id: str, body: bytes) -> bool:
        """Whether this needs no further attempt: it was taken, or refused in a way that time does not mend."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": notice_id}
        headers |= signed_headers([self._secret], notice_id, self._now(), body)
        try:
            response = await self._http.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            log.warning("alert not told, trying again", extra={"error": repr(error)})
            return False
        if response.is_success:
            return True
        final = 400 <= response.status_code < 500 and response.status_code not in (401, 403, 404, 408, 429)
        log.error(
            "alert refused by the web hook" if final else "alert not told, trying again",
            extra={"status": response.status_code},
        )
        return final


def _refused(items: Sequence[Any], start: int) -> list[Refusal]:
    """Raises SearchAway when any of them may succeed later."""
    refused = []
    for number, item in enumerate(items):
        status, error = item["create"]["status"], item["create"].get("error")
        if error is None or status == _ALREADY_THERE:
            continue
        reason = f"{error.get('type')}: {error.get('reason')}"[:500]
        if status in _BUSY or status >= 500 or error.get("type") == _NO_STREAM:
            raise SearchAway(f"OpenSearch does not take documents now: {status}, {reason}")
        refused.append(Refusal(start + number, reason))
    return refused
