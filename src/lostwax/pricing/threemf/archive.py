"""The archive around a 3MF model (a zip by the Open Packaging Conventions), opened with its limits held first.

Sizes that the archive claims are held against the limits before a byte is inflated; `zipfile` then inflates no more
than was claimed, and compares checksums.
"""

import errno
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

from lostwax.pricing.measure import ModelUnreadable

MOST_INFLATED = 512 << 20
"""Bytes of all parts that are read of one file together."""

MOST_RATIO = 200
"""Inflated : packed, of each part and of all that is read. Models reach 15."""

_LARGEST_DIRECTORY = 4 << 20
_CHUNK = 1 << 20
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd"}
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error, OverflowError, KeyError, RuntimeError)


class Package:
    """The parts of an archive, by name. Raises ModelUnreadable with code truncated, archive, encrypted, inflate_limit
    or compression. To be used as a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._packed = Path(path).stat().st_size
        self._inflated = 0
        _hold_directory(path, self._packed)
        with _damage_named():
            self._zip = zipfile.ZipFile(path)
        self._parts: dict[str, zipfile.ZipInfo] = {}
        self._twice: set[str] = set()
        for info in self._zip.infolist():
            name = canonical(info.filename)
            if name in self._parts:
                self._twice.add(name)
            self._parts[name] = info

    def __enter__(self) -> "Package":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return canonical(name) in self._parts

    def names(self) -> list[str]:
        """In lower case, without a slash at their beginning."""
        return list(self._parts)

    def chunks(self, name: str, at_most: int = MOST_INFLATED) -> Iterator[bytes]:
        """The inflated content of a part, a megabyte at a time. KeyError when there is no such part."""
        key = canonical(name)
        info = self._parts[key]
        if key in self._twice:
            # Whoever made the piece by the other part would make another piece.
            raise ModelUnreadable(
                "archive", f"The file holds “{key}” twice, so it is not clear what is meant. Please export it again."
            )
        if info.flag_bits & 0x2041:
            raise ModelUnreadable(
                "encrypted", "The file is encrypted, so it cannot be measured. Please export it openly."
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            method = _METHODS.get(info.compress_type, f"number {info.compress_type}")
            raise ModelUnreadable(
                "compression",
                f"The file is packed in a way that 3MF does not know ({method}). Please export it from your program.",
            )
        self._inflated += info.file_size
        packed = min(info.compress_size, self._packed)
        if info.file_size > min(at_most, MOST_RATIO * packed) or self._inflated > min(
            MOST_INFLATED, MOST_RATIO * self._packed
        ):
            raise ModelUnreadable(
                "inflate_limit",
                f"The file holds {info.file_size / 1e6:,.0f} MB packed into {packed / 1e6:,.3f} MB: more than is "
                f"unpacked here ({MOST_INFLATED >> 20} MB, {MOST_RATIO} : 1). Please reduce the model's triangles.",
            )
        yield from self._inflate(info)

    def _inflate(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        length = 0
        with _damage_named():
            part = self._zip.open(info)
        with part:
            while True:
                with _damage_named():
                    chunk = part.read(_CHUNK)
                    if not chunk and length != info.file_size:
                        raise zipfile.BadZipFile(f"{info.filename} has {length:,} bytes, not {info.file_size:,}")
                if not chunk:
                    return
                length += len(chunk)
                yield chunk


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        raise ModelUnreadable("compression", "The file is packed in a way that is not read here.") from error
    except _DAMAGE as error:
        raise _damaged(error) from error
    except OSError as error:
        # What seeking to a place that cannot be says; an error of the disk is not the file's fault.
        if error.errno == errno.EINVAL:
            raise _damaged(error) from error
        raise


def canonical(name: str) -> str:
    """Part names are compared without regard to case; a relationship may write them with a slash or as a URI."""
    return unquote(name).replace("\\", "/").lstrip("/").lower()


def _damaged(error: Exception) -> ModelUnreadable:
    return ModelUnreadable("archive", f"The file is a damaged archive ({error}). Please export or upload it again.")


def _hold_directory(path: str | os.PathLike[str], size: int) -> None:
    """Refuses an archive without an end, and one whose list of parts would take more memory than a model."""
    with Path(path).open("rb") as file:
        file.seek(max(0, size - 65_557 - 76))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise ModelUnreadable("truncated", "The file is cut short: its archive has no end. Please upload it again.")
    directory = int.from_bytes(tail[at + 12 : at + 16], "little")
    larger = tail.rfind(b"PK\x06\x06", 0, at)
    if larger >= 0:
        directory = max(
            directory if directory != 0xFFFFFFFF else 0, int.from_bytes(tail[larger + 40 : larger + 48], "little")
        )
    if directory > _LARGEST_DIRECTORY:
        raise ModelUnreadable("archive", "The archive lists more parts than a 3MF model has. Please export it again.")
