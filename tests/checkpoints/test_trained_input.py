"""Tests of the image size and the preprocessing that a network is used with."""

import re

import pytest

from slim.checkpoints.description import ModelDescription, write_model_description
from slim.checkpoints.trained_input import choose_input
from slim.common.errors import UserError

NETWORK = "inception_v3"


@pytest.mark.parametrize(
    ("trained", "size", "preprocessing", "expected", "notes"),
    [
        (None, None, None, (299, NETWORK), []),
        (None, 107, "vgg", (107, "vgg"), []),
        ((107, "vgg"), None, None, (107, "vgg"), []),
        ((107, NETWORK), 0, None, (299, NETWORK), ["--eval_image_size=299: trained at 107"]),
        ((107, NETWORK), 107, "inception", (107, "inception"), []),
        ((107, NETWORK), 299, None, (299, NETWORK), ["--eval_image_size=299: trained at 107"]),
        (
            (107, NETWORK),
            299,
            "vgg",
            (299, "vgg"),
            ["--eval_image_size=299: trained at 107", "--preprocessing_name=vgg: .* inception"],
        ),
    ],
)
def test_flags_take_precedence_and_notes_name_differences(
    trained, size, preprocessing, expected, notes, tmp_path, capsys
):
    if trained:
        write_model_description(tmp_path, ModelDescription(NETWORK, *trained, "birds", ("a", "b")))
    name = None if trained else NETWORK
    found = choose_input(tmp_path, name, size, preprocessing, size_flag="eval_image_size")
    assert found == (NETWORK, *expected)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == len(notes)
    for line, note in zip(printed, notes, strict=True):
        assert re.fullmatch(f"note: {note}, see .*model.json", line)


@pytest.mark.parametrize(
    ("size", "preprocessing", "message"),
    [
        (None, "incepton", "unknown preprocessing 'incepton'; did you mean"),
        (30, None, "30x30 is too small for inception_v3"),
    ],
)
def test_no_note_precedes_an_error(size, preprocessing, message, tmp_path, capsys):
    write_model_description(tmp_path, ModelDescription(NETWORK, 107, NETWORK, "birds", ("a", "b")))
    with pytest.raises(UserError, match=message):
        choose_input(tmp_path, NETWORK, size, preprocessing)
    assert capsys.readouterr().err == ""
