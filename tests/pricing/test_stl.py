"""The reader: every way in which a file may lie is named, and every sound file is read, whoever wrote it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lostwax import samples
from lostwax.pricing import mesh, stl
from lostwax.pricing.measure import ModelUnreadable

FACET = b"facet normal 0 0 1\n outer loop\n  vertex 0 0 0\n  vertex 1 0 0\n  vertex 0 1 0\n endloop\nendfacet\n"


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.stl"
    path.write_bytes(data)
    return path


def refusal(tmp_path: Path, data: bytes) -> ModelUnreadable:
    with pytest.raises(ModelUnreadable) as caught:
        mesh.measure_file(written(tmp_path, data))
    return caught.value


def ring() -> npt.NDArray[np.float64]:
    return samples.band(around=24, across=4).triangles


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ring.stl"
    samples.write_binary(ring(), path)
    read = stl.read(path)
    assert read.corners.dtype == np.float32
    np.testing.assert_array_equal(read.corners, ring().astype(np.float32))
    assert read.notes == ()


def test_ascii_says_the_same_as_binary(tmp_path: Path) -> None:
    path = tmp_path / "ring.stl"
    samples.write_ascii(ring(), path)
    np.testing.assert_array_equal(stl.read(path).corners.astype(np.float32), ring().astype(np.float32))


def test_every_broken_sample_gets_its_code(tmp_path: Path) -> None:
    for sample in samples.broken(tmp_path):
        if sample.why == "accept":
            assert mesh.measure_file(sample.path).volume_mm3 == pytest.approx(sample.volume_mm3, rel=1e-6)
            continue
        with pytest.raises(ModelUnreadable) as caught:
            mesh.measure_file(sample.path)
        assert caught.value.code == sample.why, sample.name
        assert caught.value.failure.mended_by == "customer"
        assert len(caught.value.detail) > 20


def test_a_binary_file_may_begin_with_solid(tmp_path: Path) -> None:
    data = samples.files.binary(ring(), header=b"solid facet normal 0 0 1")
    assert len(stl.read(written(tmp_path, data)).corners) == len(ring())


def test_a_few_stray_bytes_are_forgiven_and_noted_but_not_a_whole_record(tmp_path: Path) -> None:
    data = samples.files.binary(ring())
    read = stl.read(written(tmp_path, data + b"x" * 49))
    assert len(read.corners) == len(ring())
    assert "49 stray bytes" in read.notes[0]
    assert refusal(tmp_path, data + b"x" * 50).code == "size_mismatch"


def test_a_count_is_held_against_the_size_before_anything_is_allocated(tmp_path: Path) -> None:
    assert refusal(tmp_path, bytes(80) + b"\xff\xff\xff\xff" + bytes(500)).code == "truncated"


@pytest.mark.parametrize("text", ["1", "-1.5", "+.5", "5.", "1e3", "-2.5E-3", "0.1", "123456.789", "1e-20", "007"])
def test_numbers_are_read_as_python_reads_them(tmp_path: Path, text: str) -> None:
    data = b"solid a\n" + FACET.replace(b"1 0 0", f"{text} 0 0".encode()) + b"endsolid a\n"
    assert stl.read(written(tmp_path, data)).corners[0, 1, 0] == float(text)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ((b"vertex 1 0 0", b"vertex 1 nan 0"), "nonfinite"),
        ((b"vertex 1 0 0", b"vertex 1 -inf 0"), "nonfinite"),
        ((b"vertex 1 0 0", b"vertex 1 1e999 0"), "nonfinite"),
        ((b"vertex 1 0 0", b"vertex 1 0"), "ascii_syntax"),
        ((b"vertex 1 0 0", b"vertex 1 0 0 0"), "ascii_syntax"),
        ((b"vertex 1 0 0", b"vertex 1 0x1 0"), "ascii_syntax"),
        ((b"vertex 1 0 0", b"vertex 1 1e 0"), "ascii_syntax"),
        ((b" endloop", b"  vertex 1 1 0\n endloop"), "ascii_syntax"),
        ((b"outer loop", b"outer hoop"), "ascii_syntax"),
        ((b"endfacet", b"endfacets"), "ascii_syntax"),
        ((b" endloop\nendfacet\nendsolid a\n", b""), "truncated"),
        ((b"t\nendsolid a\n", b""), "truncated"),
        ((FACET, b""), "zero_triangles"),
    ],
)
def test_ascii_that_is_wrong_is_refused_by_line(tmp_path: Path, change: tuple[bytes, bytes], code: str) -> None:
    data = b"solid a\n" + FACET + b"endsolid a\n"
    assert change[0] in data
    failure = refusal(tmp_path, data.replace(*change))
    assert failure.code == code
    if code == "ascii_syntax":
        assert "Line " in failure.detail


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_ascii_in_other_habits(tmp_path: Path, ending: bytes) -> None:
    data = b"SOLID a solid facet\n" + FACET.upper() + b"ENDSOLID\nsolid b\n" + FACET + b"endsolid b\n"
    assert len(stl.read(written(tmp_path, data.replace(b"\n", ending))).corners) == 2


def test_ascii_without_its_end_is_read_with_a_note(tmp_path: Path) -> None:
    assert "endsolid" in stl.read(written(tmp_path, b"solid a\n" + FACET)).notes[0]


def test_cutting_a_file_anywhere_never_gives_a_model(tmp_path: Path) -> None:
    data = samples.files.binary(ring())
    for length in [*range(140), *range(140, len(data), 997)]:
        assert refusal(tmp_path, data[:length]).code in {"empty", "truncated", "not_a_model"}
