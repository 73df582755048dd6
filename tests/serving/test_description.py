"""Tests of the properties of a classifier: from flags, `model.json` and variable names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from slim.checkpoints.description import ModelDescription, write_model_description
from slim.common.compat import tf
from slim.common.errors import UserError
from slim.serving.description import describe_classifier

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
        **name_classes("Fink", "Zaunkönig", "Seeschwalbe"),
    )
    names = ("Fink", "Zaunkönig", "Seeschwalbe")
    assert found == ModelDescription("resnet_v2_50", 96, "inception", "named", names)


def test_one_class_more_than_names_is_the_background(checkpoint, name_classes):
    found = describe_classifier(checkpoint(InceptionV3=4), **name_classes(*NAMES))
    assert found.class_names == ("background", *NAMES)


def test_properties_that_do_not_match_or_are_missing(checkpoint, name_classes, tmp_path):
    prefix = checkpoint(InceptionV3=5)
    given = name_classes(*NAMES)
    for arguments, message in (
        (given, r"named/classes.txt names 3 classes, but checkpoint .* has 5"),
        ({**given, "dataset_name": "name"}, "no dataset 'name'.*did you mean named"),
        (
            {"model_name": "resnet_v2_50"},
            r"--model_name=resnet_v2_50: checkpoint .* has variables of inception_v3; leave",
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
        match=r"--model_name=resnet_v2_50: checkpoint .* has variables of inception_v3; leave",
    ):
        describe_classifier(prefix)
    with pytest.raises(UserError, match=r"model.json names 3 classes, but .* has 5"):
        describe_classifier(prefix, model_name="inception_v3")


@pytest.mark.parametrize("scopes", [{"other": 3}, {"InceptionV3": 3, "resnet_v2_50": 3}])
def test_the_network_is_required_if_variables_are_ambiguous(checkpoint, scopes):
    with pytest.raises(UserError, match=r"--model_name is missing: checkpoint .* has variables of"):
        describe_classifier(checkpoint(**scopes))
