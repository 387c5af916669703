"""Tells formats apart by content, never by a file's name, and reads those that can be read."""

import os
from pathlib import Path

from lostwax.pricing import obj, stl, threemf
from lostwax.pricing.measure import ModelUnreadable
from lostwax.pricing.triangles import Indexed, Triangles, empty

_LOOKED_AT = 1 << 18
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_MAGIC = (
    (b"glTF", "a GLB"),
    (b"ISO-10303-21", "a STEP"),
    (b"ply\n", "a PLY"),
    (b"ply\r", "a PLY"),
    (b"OFF\n", "an OFF"),
    (b"OFF\r", "an OFF"),
    (b"3D Geometry File Format", "a Rhino 3DM"),
    (b"Kaydara FBX", "an FBX"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"<?xml", "an XML file (AMF, X3D or the like)"),
    (b"{", "a JSON file (glTF or the like)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
)


def read(path: str | os.PathLike[str]) -> Triangles | Indexed:
    """Triangles of an STL, OBJ or 3MF file, in mm.

    Raises ModelUnreadable: `empty`, `unsupported_format` by the format's name, or what `stl.read`, `obj.read` and
    `threemf.read` say; OSError when the file cannot be opened.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_LOOKED_AT)
    if not head:
        raise empty()
    if stl.is_binary(head, size):
        return stl.read(path)
    if head.startswith(_ZIP):
        return threemf.read(path)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, name in _MAGIC:
        if start.startswith(magic):
            raise ModelUnreadable(
                "unsupported_format",
                f"The file looks like {name}, which is not yet read here. Please export it as STL, 3MF or OBJ.",
            )
    return obj.read(path) if obj.recognised(head) else stl.read(path)
