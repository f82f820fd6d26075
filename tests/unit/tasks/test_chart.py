import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from tasks.chart import loss_curve, loss_point, read_points
from tasks.pictures import jpeg_data_uri


@pytest.mark.parametrize(
    "points",
    [[(5.0, 1.0)], [(1.0, 2.0), (2.0, 2.0)], [(float(step), 3.0 / step) for step in range(1, 5000)], [(1.0, 0.0)]],
    ids=["one point", "level", "many", "zero"],
)
def test_curve_is_well_formed_and_inside_its_frame(points):
    root = ElementTree.fromstring(loss_curve(points))
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    assert "step" in root.attrib["aria-label"]
    lines = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2
    for line in lines:
        places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
        assert len(places) <= 400
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"step", "loss"} <= set(texts)


def test_no_points_no_curve():
    assert loss_curve([]) == ""


def test_points_of_a_file_with_broken_lines(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n[1]\n{"miou": 0.5}\n{"step": 3, "lo')
    assert read_points(file) == [(1.0, 2.5)]
    assert read_points(tmp_path / "missing") == []
    assert loss_point({"step": 1, "loss": float("nan")}) is None


def test_picture_keeps_to_its_size(tmp_path):
    noise = Image.effect_noise((900, 700), 90).convert("RGB")
    noise.save(tmp_path / "noise.png")
    uri = jpeg_data_uri(tmp_path / "noise.png", widest=800, largest=60_000)
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) <= 60_000
