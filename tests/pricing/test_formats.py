"""Which reader a file gets is decided by its content, and what nobody reads is refused by its name."""

import hashlib
from pathlib import Path

import pytest

from lostwax.pricing import formats, obj, scan, stl
from lostwax.pricing.measure import ModelUnreadable
from lostwax.pricing.threemf import rows


def refusal(tmp_path: Path, data: bytes, name: str = "model.stl") -> ModelUnreadable:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ModelUnreadable) as caught:
        formats.read(path)
    return caught.value


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"glTF\x02\0\0\0", "GLB"),
        (b"ISO-10303-21;\nHEADER;\n", "STEP"),
        (b"ply\nformat ascii 1.0\n", "PLY"),
        (b"OFF\r\n8 6 0\r\n", "OFF"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><amf/>", "XML"),
        (b"\x1f\x8b\x08\0", "gzip"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, start: bytes, name: str) -> None:
    for data in (start, start + b" " * 300):
        failure = refusal(tmp_path, data)
        assert failure.code == "unsupported_format"
        assert name in failure.detail


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"Dear jeweller,\nv is for Vivian.\n", "not_a_model"),
        (b"vertex 1 2 3\n" * 20, "not_a_model"),
        (b"# v 0 0 0\n" * 20, "not_a_model"),
        (b"v is for Vivian\n", "obj_syntax"),
        (b"o my dear\n", "zero_triangles"),
        (b"PK\x03\x04 said the jeweller", "truncated"),
        (b"PK\x05\x06" + bytes(18), "not_3mf"),
        (b"v 0 0 0\0" + bytes(100), "zero_triangles"),
    ],
)
@pytest.mark.parametrize("name", ["model.stl", "model.obj", "model.3mf", "model"])
def test_the_name_says_nothing(tmp_path: Path, data: bytes, code: str, name: str) -> None:
    assert refusal(tmp_path, data, name).code == code


def test_readers_name_the_scan_that_is_compiled_into_them() -> None:
    """Else an upgrade that changes `scan` alone would run the old kernels out of numba's cache."""
    digest = hashlib.sha256(Path(scan.__file__).read_bytes()).hexdigest()[:12]
    assert {stl.SCAN, obj.SCAN, rows.SCAN} == {digest}, f"set SCAN to {digest!r} in stl, obj and threemf.rows"
