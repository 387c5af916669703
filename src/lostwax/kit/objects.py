"""S3: the data path by obstore, presigned links by botocore (which binds headers to the signature)."""

import asyncio
import base64
import functools
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

import msgspec
import obstore
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from lostwax.contracts.metrics import STORAGE_CALLS
from lostwax.kit import metrics, tracing

LINK_LIFETIME_S = 15 * 60

_calls = metrics.histogram(STORAGE_CALLS)


P = ParamSpec("P")
T = TypeVar("T")


def _timed(operation: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """A call of the store is measured, and a span of its trace."""

    def measured(call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(call)
        async def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            began = time.monotonic()
            outcome = "failed"
            try:
                with tracing.span(f"{operation} s3", "client"):
                    done = await call(*args, **kwargs)
                outcome = "done"
                return done
            finally:
                _calls.record(time.monotonic() - began, operation, outcome)

        return timed

    return measured


class S3Settings(msgspec.Struct, frozen=True):
    endpoint: str
    access_key: str
    secret_key: str


class StorageAway(Exception):
    """S3 does not answer, or not sensibly; worth trying again later."""


class NoSuchObject(Exception):
    """There is no object under this key."""


class TooLong(Exception):
    """The object is longer than was announced."""


class NoSuchUpload(Exception):
    """There is no such multipart upload (any more): completed, aborted, or never begun."""


class UploadedPart(msgspec.Struct, frozen=True):
    """A part of a multipart upload that is there. `tag` is S3's, needed to complete."""

    number: int
    size_bytes: int
    tag: str


class PresignedUpload(msgspec.Struct, frozen=True):
    """How to upload: the method, the link, and headers that must be sent exactly as given."""

    method: str
    url: str
    headers: dict[str, str]
    expires_in_s: int


class Bucket:
    """One bucket under one identity."""

    def __init__(self, settings: S3Settings, name: str) -> None:
        self.name = name
        self._settings = settings
        self._store = S3Store(
            name,
            endpoint=settings.endpoint,
            access_key_id=settings.access_key,
            secret_access_key=settings.secret_key,
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": "60s", "connect_timeout": "3s"},
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
        )
        self._presigner: Any = None

    def _signer(self) -> Any:
        if self._presigner is None:
            self._presigner = get_session().create_client(
                "s3",
                region_name="us-east-1",
                endpoint_url=self._settings.endpoint,
                aws_access_key_id=self._settings.access_key,
                aws_secret_access_key=self._settings.secret_key,
                config=Config(
                    signature_version="s3v4",
                    s3={"addressing_style": "path"},
                    connect_timeout=3,
                    read_timeout=30,
                    retries={"mode": "standard", "total_max_attempts": 2},
                ),
            )
        return self._presigner

    async def _call(self, operation: str, **arguments: Any) -> Any:
        """One call by botocore, in a thread. Raises NoSuchUpload, StorageAway."""
        call = partial(getattr(self._signer(), operation), Bucket=self.name, **arguments)
        try:
            return await asyncio.to_thread(call)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "NoSuchUpload":
                raise NoSuchUpload(str(error)) from None
            raise StorageAway(str(error)) from error
        except BotoCoreError as error:
            raise StorageAway(str(error)) from error

    @_timed("create_multipart")
    async def begin_multipart(self, key: str) -> str:
        """Begin an upload by parts; returns S3's name of it. Raises StorageAway."""
        begun = await self._call("create_multipart_upload", Key=key)
        return str(begun["UploadId"])

    @_timed("list_parts")
    async def parts(self, key: str, multipart_id: str) -> list[UploadedPart]:
        """The parts that are there, by number. Raises NoSuchUpload, StorageAway."""
        found: list[UploadedPart] = []
        after = 0
        while True:
            page = await self._call("list_parts", Key=key, UploadId=multipart_id, PartNumberMarker=after)
            found += [UploadedPart(p["PartNumber"], p["Size"], p["ETag"]) for p in page.get("Parts", [])]
            if not page.get("IsTruncated"):
                return found
            after = page["NextPartNumberMarker"]

    @_timed("complete_multipart")
    async def complete_multipart(self, key: str, multipart_id: str, parts: Sequence[UploadedPart]) -> None:
        """Put the object together from its parts. Raises NoSuchUpload, StorageAway."""
        listed = [{"PartNumber": p.number, "ETag": p.tag} for p in parts]
        await self._call("complete_multipart_upload", Key=key, UploadId=multipart_id, MultipartUpload={"Parts": listed})

    @_timed("abort_multipart")
    async def abort_multipart(self, key: str, multipart_id: str) -> None:
        """End an upload by parts and drop what came of it; one that is over is fine. Raises StorageAway."""
        try:
            await self._call("abort_multipart_upload", Key=key, UploadId=multipart_id)
        except NoSuchUpload:
            return

    def presign_part(
        self, key: str, multipart_id: str, number: int, *, size_bytes: int, sha256: str | None = None
    ) -> PresignedUpload:
        """A link that takes exactly this part: upload, number and length are bound, and its sha-256 if given.

        Signs locally; no network.
        """
        bound: dict[str, Any] = {"UploadId": multipart_id, "PartNumber": number, "ContentLength": size_bytes}
        headers = {"Content-Length": str(size_bytes)}
        if sha256 is not None:
            headers["x-amz-checksum-sha256"] = base64.b64encode(bytes.fromhex(sha256)).decode()
            bound["ChecksumSHA256"] = headers["x-amz-checksum-sha256"]
        url = self._signer().generate_presigned_url(
            "upload_part", Params={"Bucket": self.name, "Key": key, **bound}, ExpiresIn=LINK_LIFETIME_S
        )
        return PresignedUpload(method="PUT", url=url, headers=headers, expires_in_s=LINK_LIFETIME_S)

    def presign_put(self, key: str, *, size_bytes: int, sha256: str) -> PresignedUpload:
        """A link that takes exactly this file: key, length and sha-256 are bound, for fifteen minutes.

        Signs locally; no network.
        """
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        url = self._signer().generate_presigned_url(
            "put_object",
            Params={"Bucket": self.name, "Key": key, "ContentLength": size_bytes, "ChecksumSHA256": checksum},
            ExpiresIn=LINK_LIFETIME_S,
        )
        return PresignedUpload(
            method="PUT",
            url=url,
            headers={"Content-Length": str(size_bytes), "x-amz-checksum-sha256": checksum},
            expires_in_s=LINK_LIFETIME_S,
        )

    def presign_get(self, key: str, *, file_name: str) -> str:
        """A link that gives this object for fifteen minutes, saved under `file_name`. Signs locally; no network."""
        url: str = self._signer().generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self.name,
                "Key": key,
                "ResponseContentDisposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}",
            },
            ExpiresIn=LINK_LIFETIME_S,
        )
        return url

    @_timed("head")
    async def size(self, key: str) -> int | None:
        """Length of the object in bytes, or None when there is none. Raises StorageAway."""
        try:
            return (await obstore.head_async(self._store, key))["size"]
        except (NotFoundError, FileNotFoundError):
            return None
        except BaseError as error:
            raise StorageAway(str(error)) from error

    @_timed("get")
    async def download(self, key: str, target: Path, *, at_most: int) -> str:
        """Write the object to `target` and return the sha-256 of what was written.

        Raises NoSuchObject, TooLong past `at_most` bytes, StorageAway.
        """
        digest = hashlib.sha256()
        written = 0
        try:
            result = await obstore.get_async(self._store, key)
            with target.open("wb") as file:
                async for chunk in result.stream(min_chunk_size=4 * 1024 * 1024):
                    written += len(chunk)
                    if written > at_most:
                        raise TooLong(f"{key} is longer than {at_most} bytes")
                    digest.update(chunk)
                    file.write(chunk)
        except (NotFoundError, FileNotFoundError):
            raise NoSuchObject(key) from None
        except BaseError as error:
            raise StorageAway(str(error)) from error
        return digest.hexdigest()

    @_timed("put")
    async def upload(self, key: str, source: Path) -> None:
        """Store the file under `key`, replacing what is there. Raises StorageAway."""
        try:
            await obstore.put_async(self._store, key, source)
        except BaseError as error:
            raise StorageAway(str(error)) from error

    @_timed("delete")
    async def delete(self, key: str) -> None:
        """Delete the object; none there is fine. Raises StorageAway."""
        try:
            await obstore.delete_async(self._store, key)
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise StorageAway(str(error)) from error

    async def keys(self) -> AsyncIterator[str]:
        """Every key in the bucket."""
        async for page in obstore.list(self._store):
            for entry in page:
                yield entry["path"]
