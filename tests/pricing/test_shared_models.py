"""Real and hostile STL files with figures that two other programs computed. Needs ../shared/models."""

import json
from pathlib import Path
from typing import Any

import pytest

from lostwax.pricing import mesh
from lostwax.pricing.measure import ModelUnreadable

MODELS = Path(__file__).parents[3] / "shared" / "models"
if not (MODELS / "manifest.json").exists():
    pytest.skip("../shared/models is not here", allow_module_level=True)

pytestmark = pytest.mark.shared

REAL: list[dict[str, Any]] = [
    entry for entry in json.loads((MODELS / "manifest.json").read_text())["files"] if entry["file"].endswith(".stl")
]
HOSTILE: list[dict[str, Any]] = [
    entry for entry in json.loads((MODELS / "hostile/manifest.json").read_text()) if entry["file"].endswith(".stl")
]


def by_name(entry: dict[str, Any]) -> str:
    return str(entry["file"])


@pytest.mark.parametrize("entry", [e for e in REAL if e["volume"]], ids=by_name)
def test_volume_area_and_box_agree_with_the_manifest(entry: dict[str, Any]) -> None:
    geometry = mesh.measure_file(MODELS / entry["file"])
    # The manifest keeps seven digits.
    assert geometry.volume_mm3 == pytest.approx(entry["volume"], rel=1e-6)
    assert geometry.area_mm2 == pytest.approx(entry["area"], rel=1e-6)
    assert geometry.box_mm == pytest.approx(entry["bbox"], rel=1e-6)
    assert geometry.triangles == entry["triangles"]
    noted = " ".join(geometry.notes)
    assert ("cracks along" in noted) == (entry["state"] == "closed_after_tolerance_weld")
    assert ("turned to look outwards" in noted) == (entry["state"] == "flipped")


@pytest.mark.parametrize("entry", [e for e in REAL if not e["volume"]], ids=by_name)
def test_open_models_are_refused_with_their_open_edges(entry: dict[str, Any]) -> None:
    with pytest.raises(ModelUnreadable) as caught:
        mesh.measure_file(MODELS / entry["file"])
    assert caught.value.code == "not_closed"
    assert f"at {entry['exact_open_edges']} edges" in caught.value.detail


@pytest.mark.parametrize("entry", HOSTILE, ids=by_name)
def test_hostile_files_meet_their_expectation(entry: dict[str, Any]) -> None:
    path, expected = MODELS / "hostile" / entry["file"], entry["expect"]
    if expected.startswith("reject:"):
        with pytest.raises(ModelUnreadable) as caught:
            mesh.measure_file(path)
        assert caught.value.code == expected.removeprefix("reject:")
        return
    volume, note = {
        "adv_duplicate_face.stl": (1000, "there twice"),
        "adv_flipped.stl": (1000, "inside out"),
        "adv_solid_binary.stl": (1000, None),
        "adv_trailing_garbage.stl": (1000, "33 stray bytes"),
        "adv_two_cubes_overlap.stl": (2000, "2 separate bodies"),
    }[entry["file"]]
    geometry = mesh.measure_file(path)
    assert geometry.volume_mm3 == pytest.approx(volume, rel=1e-6)
    assert note is None or note in " ".join(geometry.notes)
