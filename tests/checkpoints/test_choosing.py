"""Network, image size, preprocessing and classes: of flags, of `model.json`, or inferred."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slim.checkpoints.choosing import describe_classifier
from slim.checkpoints.description import ModelDescription, choose_input, write_model_description
from slim.common.compat import tf
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
    found = choose_input(
        f"{tmp_path}/model.ckpt-1", name, size, preprocessing, size_flag="eval_image_size"
    )
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
        choose_input(f"{tmp_path}/model.ckpt-1", NETWORK, size, preprocessing)
    assert capsys.readouterr().err == ""


NAMES = ("finch", "wren", "tern")
WRITTEN = ModelDescription("resnet_v2_50", 64, "vgg", "birds", NAMES)


@pytest.fixture
def checkpoint(tmp_path) -> Callable[..., str]:
    """Writes a checkpoint that only has the biases of classifiers."""

    def write(**num_classes: int) -> str:
        with tf.Graph().as_default(), tf.Session() as session:
            for scope, count in num_classes.items():
                layer = "logits" if scope.startswith("resnet") else "Logits/Conv2d_1c_1x1"
                tf.get_variable(f"{scope}/{layer}/biases", [count])
            session.run(tf.global_variables_initializer())
            return tf.train.Saver().save(session, str(tmp_path / "run/model.ckpt"), 5)

    return write


@pytest.fixture
def name_classes(tmp_path) -> Callable[..., dict[str, str]]:
    """Makes a dataset with class names, and returns the arguments that select it."""

    def write(*names: str) -> dict[str, str]:
        folder = tmp_path / "data/named"
        folder.mkdir(parents=True)
        lines = [f"{label} {name}\n" for label, name in enumerate(names)]
        (folder / "classes.txt").write_text("".join(lines))
        return {"dataset_name": "named", "dataset_dir": str(tmp_path / "data")}

    return write


def test_network_and_classes_are_inferred_from_the_variables(checkpoint):
    expected = ModelDescription("inception_v4", 299, "inception_v4", "", ("0", "1"))
    assert describe_classifier(checkpoint(InceptionV4=2)) == expected


def test_flags_take_precedence_over_the_description(checkpoint, name_classes):
    prefix = checkpoint(resnet_v2_50=3)
    write_model_description(Path(prefix).parent, WRITTEN)
    assert describe_classifier(prefix) == WRITTEN
    found = describe_classifier(
        prefix,
        image_size=96,
        preprocessing_name="inception",
        renamed_classes=True,
        **name_classes("Fink", "Zaunkönig", "Seeschwalbe"),
    )
    names = ("Fink", "Zaunkönig", "Seeschwalbe")
    assert found == ModelDescription("resnet_v2_50", 96, "inception", "named", names)


@pytest.mark.parametrize("named", [True, False])
def test_a_background_class_is_known_not_guessed(checkpoint, name_classes, named):
    prefix, given = checkpoint(resnet_v2_50=4), name_classes(*NAMES)
    message = r"names 3 classes, but checkpoint .* has 4: .*; if its first class is a background"
    with pytest.raises(UserError, match=message):
        describe_classifier(prefix, **given)
    write_model_description(Path(prefix).parent, WRITTEN)
    with pytest.raises(UserError, match=message):  # nor for names of model.json
        describe_classifier(prefix)
    names = NAMES if named else ("0", "1", "2")
    known = replace(WRITTEN, class_names=("background", *names), labels_offset=-1)
    write_model_description(Path(prefix).parent, known)
    assert describe_classifier(prefix, **given).class_names == ("background", *NAMES)


def test_a_positive_offset_removes_names_of_the_dataset(checkpoint, name_classes):
    prefix, given = checkpoint(resnet_v2_50=2), name_classes(*NAMES)
    known = replace(WRITTEN, class_names=NAMES[1:], labels_offset=1)
    write_model_description(Path(prefix).parent, known)
    assert describe_classifier(prefix, **given).class_names == NAMES[1:]


def test_properties_that_do_not_match_or_are_missing(checkpoint, name_classes, tmp_path):
    prefix = checkpoint(InceptionV3=5)
    given = name_classes(*NAMES)
    for arguments, message in (
        (given, r"named/classes.txt names 3 classes, but checkpoint .* has 5"),
        ({**given, "dataset_name": "name"}, "no dataset 'name'.*did you mean named"),
        (
            {"model_name": "resnet_v2_50"},
            r"--model_name=resnet_v2_50: checkpoint .* has variables of inception_v3; omit",
        ),
        ({"image_size": 74}, "74x74 is too small for inception_v3"),
    ):
        with pytest.raises(UserError, match=message):
            describe_classifier(prefix, **arguments)
    for content, message in (
        (b"1 finch\n2 wren\n", "classes.txt is invalid; expected one line 'label name' per class"),
        ("0 finch\n1 Zaunkönig\n".encode("latin-1"), "classes.txt line 2 is not UTF-8"),
    ):
        (tmp_path / "data/named/classes.txt").write_bytes(content)
        with pytest.raises(UserError, match=message):
            describe_classifier(prefix, **given)
    (tmp_path / "data/named/classes.txt").unlink()
    with pytest.raises(UserError, match=r"classes.txt is missing; expected one line"):
        describe_classifier(prefix, **given)
    write_model_description(Path(prefix).parent, WRITTEN)
    with pytest.raises(
        UserError,
        match=r"--model_name=resnet_v2_50: checkpoint .* has variables of inception_v3; omit",
    ):
        describe_classifier(prefix)
    with pytest.raises(UserError, match=r"model.json names 3 classes, but .* has 5"):
        describe_classifier(prefix, model_name="inception_v3")


@pytest.mark.parametrize("scopes", [{"other": 3}, {"InceptionV3": 3, "resnet_v2_50": 3}])
def test_the_network_is_required_if_variables_are_ambiguous(checkpoint, scopes):
    with pytest.raises(UserError, match=r"--model_name is missing: checkpoint .* has variables of"):
        describe_classifier(checkpoint(**scopes))
