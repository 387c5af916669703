"""The samples are what they claim: closed, oriented, of the volume of their formulas, and the same every time."""

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lostwax import samples
from lostwax.samples import Shape

SHAPES = {
    "flat": lambda: samples.band(profile="flat", around=60, across=6),
    "comfort": lambda: samples.band(profile="comfort", size=46, around=60, across=6),
    "half-round": lambda: samples.band(profile="half-round", size=68, around=60, across=6),
    "signet": lambda: samples.signet(around=80, across=6),
    "solitaire": lambda: samples.solitaire(around=80, across=6),
    "solitaire-4": lambda: samples.solitaire(around=96, across=5, prongs=4, stone=7, width=2.2),
    "drop": lambda: samples.pendant(around=100, across=5),
    "round": lambda: samples.pendant(form="round", around=100, across=5),
    "star": lambda: samples.pendant(form="star", around=100, across=5),
    "heart": lambda: samples.pendant(form="heart", around=100, across=5),
}


def directed_edges(shape: Shape) -> Counter[tuple[bytes, bytes]]:
    """Each directed edge of the float32 mesh, counted with plain dictionaries: independent of the kernels."""
    corners = shape.triangles.astype("<f4") + np.float32(0)
    edges: Counter[tuple[bytes, bytes]] = Counter()
    for triangle in corners:
        a, b, c = (corner.tobytes() for corner in triangle)
        edges.update([(a, b), (b, c), (c, a)])
    return edges


@pytest.mark.parametrize("name", SHAPES)
def test_every_edge_has_two_faces_in_opposite_senses(name: str) -> None:
    edges = directed_edges(SHAPES[name]())
    assert set(edges.values()) == {1}
    assert all((end, start) in edges for start, end in edges)


@pytest.mark.parametrize("name", SHAPES)
def test_volume_by_formula_is_that_of_the_mesh(name: str) -> None:
    shape = SHAPES[name]()
    a, b, c = (shape.triangles[:, k] for k in range(3))
    by_tetrahedra = float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)
    assert shape.volume_mm3 == pytest.approx(by_tetrahedra, rel=1e-10)
    assert 50 < shape.volume_mm3 < 3000


def test_a_fine_flat_band_approaches_the_smooth_one() -> None:
    """Pappus for the smooth solid, from the drawing's numbers alone."""
    size, width, thickness = 54.0, 4.0, 1.8
    shape = samples.band(size=size, profile="half-round", width=width, thickness=thickness, around=720, across=200)
    inner = size / (2 * np.pi)
    z = np.linspace(-1, 1, 200_001)
    outer = inner + thickness * (0.35 + 0.65 * np.sqrt(1 - z * z))
    smooth = np.pi * np.trapezoid(outer**2 - inner**2, z) * width / 2
    assert shape.volume_mm3 == pytest.approx(float(smooth), rel=3e-4)


def test_the_inner_circumference_is_the_eu_size() -> None:
    shape = samples.band(size=60, profile="flat", around=512, across=6)
    radius = np.hypot(shape.triangles[..., 0], shape.triangles[..., 1]).min()
    assert 2 * np.pi * radius == pytest.approx(60, rel=1e-9)


def test_a_band_can_be_as_fine_as_a_benchmark_needs() -> None:
    shape = samples.band(around=1000, across=99)
    assert len(shape.triangles) == 4 * 1000 * 100


def test_one_seed_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    first = samples.generate(tmp_path / "a", 12, seed=1)
    again = samples.generate(tmp_path / "b", 12, seed=1)
    other = samples.generate(tmp_path / "c", 12, seed=2)
    assert [s.sha256 for s in first] == [s.sha256 for s in again]
    assert len({s.sha256 for s in first + other}) == 24
    for sample in first:
        data = sample.path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == sample.sha256
        assert len(data) == sample.size_bytes == 84 + 50 * sample.triangles
        assert 2_000 <= sample.triangles <= 60_000


@pytest.mark.parametrize("write", [samples.write_obj, samples.write_3mf])
def test_other_formats_have_the_same_bytes_every_time(tmp_path: Path, write: Callable[..., None]) -> None:
    shape = samples.band(around=30, across=4)
    for name in "ab":
        write(shape.triangles, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_repeats_share_their_files(tmp_path: Path) -> None:
    made = samples.generate(tmp_path, 9, seed=3, distinct=4)
    assert len(made) == 9
    assert len({s.sha256 for s in made}) == 4
    assert len(list(tmp_path.iterdir())) == 4


def test_broken_files_are_broken_in_different_ways(tmp_path: Path) -> None:
    broken = samples.broken(tmp_path)
    codes = {b.why for b in broken}
    assert {"empty", "truncated", "size_mismatch", "nonfinite", "extent", "not_closed", "zero_triangles"} <= codes
    assert {"index", "free_form", "cycle", "doctype", "inflate_limit", "unsupported_extension"} <= codes
    assert len({b.path.read_bytes() for b in broken}) == len(broken)
