"""The picture of the worst mistakes."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.font_manager import fontManager
from PIL import Image

from slim.common import figures
from slim.datasets.input import Dataset
from slim.datasets.lists import Entry
from slim.datasets.tfrecord import encode_example, write_record
from slim.evaluation.predictions import Predictions
from slim.evaluation.publishing import LINE, MARGIN, SIDE, mistakes_picture, worst_mistakes

TOP = np.array([[0, 1], [1, 0], [1, 0], [-1, -1], [1, 0]])
LABELS = np.array([0, 0, 1, 0, 0])
PROBABILITIES = np.float32([[0.9, 0.1], [0.6, 0.4], [1, 0], [0, 0], [0.8, 0.2]])
PREDICTIONS = Predictions(5, LABELS, TOP, PROBABILITIES, 2, ("a" * 50, "b"))


def write_shards(folder: Path) -> tuple[str, ...]:
    """Writes five images of different colours, three in the first shard."""
    files = (folder / "first", folder / "second")
    for file, indices in zip(files, (range(3), range(3, 5)), strict=True):
        with file.open("wb") as shard:
            for index in indices:
                content = io.BytesIO()
                Image.new("RGB", (30, 20), (50 * index, 0, 0)).save(content, "JPEG")
                example = encode_example(content.getvalue(), 0, height=20, width=30)
                write_record(shard, example)
    return tuple(map(str, files))


def test_most_certain_mistakes_come_first():
    assert worst_mistakes(PREDICTIONS).tolist() == [4, 1]
    assert worst_mistakes(PREDICTIONS, 1).tolist() == [4]


def test_pictures_are_those_of_the_mistakes(tmp_path, monkeypatch):
    dataset = Dataset(
        name="reds",
        split_name="validation",
        files=write_shards(tmp_path),
        num_samples=5,
        num_classes=2,
    )
    picture = Image.open(io.BytesIO(mistakes_picture(PREDICTIONS, dataset)))
    assert picture.size == (2 * SIDE + 3 * MARGIN, SIDE + 2 * LINE + 2 * MARGIN)
    centre = MARGIN + SIDE // 2
    reds = [picture.getpixel((centre + i * (SIDE + MARGIN), centre))[0] for i in range(2)]
    np.testing.assert_allclose(reds, [200, 50], atol=3)

    def drawn(*names: str) -> bytes:
        return mistakes_picture(replace(PREDICTIONS, class_names=names), dataset)

    # With the name of the file, the picture is as wide and has one line more.
    named = replace(PREDICTIONS, entries=[Entry(f"a/{i}.jpg", 0, i) for i in range(5)])
    longer = Image.open(io.BytesIO(mistakes_picture(named, dataset)))
    assert longer.size == (picture.width, picture.height + LINE)
    same = longer.crop((0, 0, picture.width, picture.height - MARGIN))
    assert same.tobytes() == picture.crop(same.getbbox()).tobytes()
    assert min(longer.convert("L").crop((0, same.height, *longer.size)).tobytes()) < 128

    # A script of no font is escaped, one of some font is drawn, and neither is a row of boxes.
    only = [font for font in fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(figures, "_fonts", lambda: only)
    assert drawn("麻雀", "b") == drawn(r"\u9ebb\u96c0", "b")
    assert len({drawn("Воробей", "b"), drawn("Робовей", "b"), drawn(ascii("Воробей"), "b")}) == 3
    monkeypatch.setattr(figures, "_fonts", list)  # as without Matplotlib
    assert drawn("Пё", "b") == drawn(r"\u041f\u0451", "b")
    right = Predictions(5, LABELS[:1], TOP[:1], PROBABILITIES[:1], 2)
    assert mistakes_picture(right, dataset) is None
