"""`model.json`: a written description can be read; an invalid one is refused in one line."""

import json
from dataclasses import replace

import pytest

from slim.checkpoints.description import (
    ModelDescription,
    read_model_description,
    write_model_description,
)
from slim.common.errors import UserError

WRITTEN = ModelDescription(
    "inception_v3", 299, "vgg", "flower_102", ("Fingerhut", "Türkenbund", "花")
)


@pytest.mark.parametrize("written", [WRITTEN, replace(WRITTEN, dataset_name="caf\udce9")])
def test_what_is_written_is_read(tmp_path, written):
    """Also the name of a folder that is not UTF-8."""
    assert read_model_description(tmp_path) is None
    write_model_description(tmp_path, written)
    assert read_model_description(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
    keys = ["format", "model_name", "image_size", "preprocessing_name", "dataset_name"]
    assert list(json.loads((tmp_path / "model.json").read_text())) == [*keys, "class_names"]


def test_orientation_is_written_where_it_is_applied(tmp_path):
    for applied in (False, True):
        written = replace(WRITTEN, apply_orientation=applied)
        write_model_description(tmp_path, written)
        assert read_model_description(tmp_path) == written
        assert ("apply_orientation" in (tmp_path / "model.json").read_text()) == applied


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"image_size": "299"},
        {"class_names": None},
        {"class_names": [1, 2, 3]},
        {"colour": "green"},
        {"labels_offset": "1"},
    ],
    ids=str,
)
def test_other_content_is_refused(change, tmp_path):
    write_model_description(tmp_path, WRITTEN)
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=r"model.json is not valid .*: delete it, and pass --model"):
        read_model_description(tmp_path)


@pytest.mark.parametrize("content", ["", '{"format": 1}', "[1]", '{"format": 1, "model_na'])
def test_damage_is_refused(content, tmp_path):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match=r"model.json is not valid .*: delete it, and pass --model"):
        read_model_description(tmp_path)
