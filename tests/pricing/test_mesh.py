"""Measuring: volumes that are known otherwise, laws that every solid obeys, and surfaces that need mending."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lostwax import samples
from lostwax.contracts.orders import Geometry
from lostwax.pricing import mesh
from lostwax.pricing.measure import KERNEL, ModelUnreadable
from lostwax.pricing.triangles import Triangles

Soup = npt.NDArray[np.float64]


def cube(side: float = 10.0, at: tuple[float, float, float] = (0, 0, 0)) -> Soup:
    """Twelve triangles; volume side^3."""
    corner = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], dtype=np.float64)
    faces = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (1, 3, 7, 5), (3, 2, 6, 7), (2, 0, 4, 6)]
    index = [t for a, b, c, d in faces for t in ((a, b, c), (a, c, d))]
    return np.asarray(corner[index] * side + np.array(at))


def ring() -> samples.Shape:
    return samples.solitaire(around=64, across=4)


def measure(soup: Soup) -> Geometry:
    return mesh.measure(Triangles(soup))


def refused(soup: Soup) -> ModelUnreadable:
    with pytest.raises(ModelUnreadable) as caught:
        measure(soup)
    return caught.value


def rotation(a: float, b: float, c: float) -> Soup:
    def about(axis: int, angle: float) -> Soup:
        i, j = (axis + 1) % 3, (axis + 2) % 3
        m = np.eye(3)
        m[i, i] = m[j, j] = np.cos(angle)
        m[i, j], m[j, i] = -np.sin(angle), np.sin(angle)
        return m

    return np.asarray(about(0, a) @ about(1, b) @ about(2, c))


def test_a_cube() -> None:
    geometry = measure(cube())
    assert geometry == Geometry(1000.0, 600.0, (10.0, 10.0, 10.0), 12, True, (), KERNEL)


def test_samples_have_the_volume_of_their_formula() -> None:
    for shape in (ring(), samples.band(), samples.signet(), samples.pendant(form="heart")):
        geometry = measure(shape.triangles)
        assert geometry.volume_mm3 == pytest.approx(shape.volume_mm3, rel=1e-9)
        assert geometry.notes == ()


angles = st.floats(-3.2, 3.2)


@settings(max_examples=40, deadline=None)
@given(angles, angles, angles, st.tuples(*[st.floats(-1000, 1000)] * 3), st.integers(0, 2**32))
def test_volume_and_area_do_not_depend_on_place_rotation_or_order(a, b, c, shift, seed) -> None:  # type: ignore[no-untyped-def]
    shape = ring()
    still = measure(shape.triangles)
    order = np.random.default_rng(seed).permutation(len(shape.triangles))
    moved = measure((shape.triangles @ rotation(a, b, c).T + np.array(shift))[order])
    assert moved.volume_mm3 == pytest.approx(still.volume_mm3, rel=1e-8)
    assert moved.area_mm2 == pytest.approx(still.area_mm2, rel=1e-8)
    assert moved.closed


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100))
def test_scaling_by_s_scales_volume_by_its_cube(s: float) -> None:
    still, large = measure(ring().triangles), measure(ring().triangles * s)
    assert large.volume_mm3 == pytest.approx(still.volume_mm3 * s**3, rel=1e-9)
    assert large.area_mm2 == pytest.approx(still.area_mm2 * s**2, rel=1e-9)
    assert large.box_mm == pytest.approx([side * s for side in still.box_mm], rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 11), min_size=1, max_size=11))
def test_any_flipped_faces_are_turned_back(faces: set[int]) -> None:
    soup = cube(at=(70, -30, 5))
    for face in faces:
        soup[face] = soup[face, ::-1]
    geometry = measure(soup)
    assert geometry.volume_mm3 == pytest.approx(1000)
    assert geometry.notes


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 11), min_size=1, max_size=11))
def test_any_missing_face_is_noticed(faces: set[int]) -> None:
    assert refused(np.delete(cube(), sorted(faces), axis=0)).code == "not_closed"


def test_the_first_look_alone_tells_a_sound_surface_from_others() -> None:
    """Else every model would take the slow second look, with the same result."""
    sound = ring().triangles
    assert mesh.survey(Triangles(sound))[2]
    assert mesh.survey(Triangles(sound[:, ::-1]))[2]
    flipped = sound.copy()
    flipped[7] = flipped[7, ::-1]
    moved = sound.copy()
    moved[7, 1] += 1e-9
    for wrong in (sound[1:], np.concatenate([sound, sound[:1]]), flipped, moved):
        assert not mesh.survey(Triangles(wrong))[2]


def test_the_number_of_open_edges_is_told() -> None:
    assert "at 3 edges" in refused(np.delete(cube(), 5, axis=0)).detail


def test_inside_out_is_turned_and_noted() -> None:
    geometry = measure(cube()[:, ::-1])
    assert geometry.volume_mm3 == 1000
    assert "inside out" in geometry.notes[0]


def test_a_face_that_is_there_twice_counts_once() -> None:
    geometry = measure(np.concatenate([cube(), cube()[3:5]]))
    assert geometry.volume_mm3 == 1000
    assert geometry.area_mm2 == 600
    assert geometry.notes == ("2 faces were there twice and removed",)


def test_slivers_and_minus_zero_do_not_open_a_surface() -> None:
    soup = cube()
    soup[:4] *= np.where(soup[:4] == 0, -1.0, 1.0)
    sliver = np.array([[[0, 0, 0], [10, 0, 0], [10, 0, 0]]], dtype=np.float64)
    geometry = measure(np.concatenate([soup, sliver]))
    assert geometry.volume_mm3 == 1000
    assert geometry.notes == ()


def test_a_crack_within_tolerance_is_joined_and_a_wide_one_is_not() -> None:
    soup = cube()
    soup[0] += 5e-6
    geometry = measure(soup)
    assert geometry.volume_mm3 == pytest.approx(1000, rel=1e-5)
    assert "cracks" in geometry.notes[0]
    soup[0] += 0.1
    assert refused(soup).code == "not_closed"


def test_a_cavity_is_taken_off_and_noted() -> None:
    inner = cube(5, (2, 3, 2))[:, ::-1]
    geometry = measure(np.concatenate([inner, cube()]))
    assert geometry.volume_mm3 == pytest.approx(875)
    assert geometry.notes == ("1 cavity inside the model taken off its volume",)


def test_an_inverted_body_beside_another_is_turned() -> None:
    geometry = measure(np.concatenate([cube(), cube(5, (20, 0, 0))[:, ::-1]]))
    assert geometry.volume_mm3 == pytest.approx(1125)
    assert "inside out" in geometry.notes[0]


def test_an_inverted_body_in_the_hole_of_a_ring_is_not_its_cavity() -> None:
    """Its box lies inside the ring's box, but it lies outside of the ring."""
    band = samples.band(around=48, across=4)
    geometry = measure(np.concatenate([band.triangles, cube(1, (-0.5, -0.5, -0.5))[:, ::-1]]))
    assert geometry.volume_mm3 == pytest.approx(band.volume_mm3 + 1)


def test_overlapping_bodies_are_noted_and_distant_ones_are_not() -> None:
    assert "2 separate bodies" in measure(np.concatenate([cube(), cube(10, (5, 5, 5))])).notes[0]
    assert measure(np.concatenate([cube(), cube(10, (50, 0, 0))])).notes == ()


def test_an_inner_wall_is_refused() -> None:
    wall = np.array([[[0, 0, 0], [10, 0, 0], [10, 10, 10]], [[0, 0, 0], [10, 10, 10], [0, 10, 10]]], dtype=np.float64)
    assert refused(np.concatenate([cube(), wall])).code in {"not_closed", "not_manifold"}


def test_a_one_sided_surface_is_refused() -> None:
    """Klein bottle: a grid whose one direction closes with a twist, in general position."""
    n = 12
    point = np.random.default_rng(1).random((n, n, 3))
    quads = []
    for i in range(n):
        for j in range(n):
            right, up = (i + 1) % n, (j + 1) % n
            sense = -1 if i == n - 1 else 1
            a, b, c, d = point[i, j], point[right, sense * j % n], point[right, sense * up % n], point[i, up]
            quads += [[a, b, c], [a, c, d]]
    assert refused(np.array(quads)).code == "not_orientable"


def test_a_sheet_with_two_sides_encloses_nothing() -> None:
    sheet = cube()[:2]
    assert refused(np.concatenate([sheet, sheet[:, ::-1]])).code == "no_volume"


@pytest.mark.parametrize(("value", "code"), [(np.nan, "nonfinite"), (np.inf, "nonfinite"), (-2e5, "extent")])
def test_one_bad_number_anywhere_is_found(value: float, code: str) -> None:
    for where in ((0, 0, 0), (5, 1, 2), (11, 2, 1)):
        soup = cube()
        soup[where] = value
        assert refused(soup).code == code


def test_a_model_far_from_its_origin_loses_no_volume() -> None:
    assert measure(cube(1.0, (90_000, 90_000, -90_000))).volume_mm3 == pytest.approx(1, rel=1e-9)
