"""Settings of the notebooks from parameters and from the features that are there."""

import numpy as np
import pytest

from slim.common.errors import UserError
from slim.transfer.notebooks import domain_settings, linear_settings, load_domain_features


def write(folder, *datasets):
    folder.mkdir(parents=True, exist_ok=True)
    for dataset in datasets:
        for split in ("train", "val"):
            np.save(folder / f"{dataset}_feature_{split}.npy", np.ones((3, 2), np.float32))
            np.save(folder / f"{dataset}_label_{split}.npy", np.arange(3, dtype=np.int32))


def linear(folder, **given):
    return linear_settings(feature_dir=str(folder), **given)


def domain(folder, **given):
    return domain_settings(feature_dir=str(folder), dataset_dir="data", **given)


def test_linear_settings_of_the_paper_come_first(tmp_path):
    write(tmp_path / "toy_inat", "toy_birds")
    toy = linear(tmp_path)
    assert (toy.network.name, toy.dataset, toy.published) == ("toy_inat", "toy_birds", None)
    assert toy.origin.startswith("The toy domains, because ") and toy.other_network is None
    assert toy.long_tailed == "toy_birds"  # there are no features of toy_inat
    write(tmp_path / "toy_imagenet", "toy_birds")
    assert linear(tmp_path).other_network == tmp_path / "toy_imagenet"
    write(tmp_path / "inception_v3_iNat_299", "cub_200", "nabirds")
    paper = linear(tmp_path)
    assert (paper.dataset, paper.long_tailed, paper.published) == ("cub_200", "nabirds", 0.899)
    assert paper.origin == "The paper's setting." and paper.other_network is None


def test_linear_settings_that_are_given(tmp_path):
    write(tmp_path / "mine", "moths")
    found = linear(tmp_path, network="mine", dataset_name="moths")
    assert (found.network, found.dataset) == (tmp_path / "mine", "moths")
    assert (found.long_tailed, found.other_network, found.published) == ("moths", None, None)
    assert found.origin == "Own settings."
    # A name that is given is kept, so that its absence is an error.
    assert linear(tmp_path, network="mine", other_network="x").other_network == tmp_path / "x"
    assert linear(tmp_path, network="mine", other_network="mine").other_network is None


def test_domain_settings_of_the_paper_come_first(tmp_path):
    toy = domain(tmp_path)
    assert [network.name for network in toy.networks] == toy.sources == ["toy_imagenet", "toy_inat"]
    assert toy.with_union[-1] == "toy_imagenet+toy_inat"
    assert (toy.normalize, toy.gamma, toy.min_count, toy.top_k) == (True, 1, 1, None)
    assert not toy.is_published
    (tmp_path / "resnet_101_JFT_299").mkdir()
    paper = domain(tmp_path)
    assert (paper.normalize, paper.gamma, paper.min_count, paper.top_k) == (False, 0.01, 200, 200)
    assert paper.is_published and paper.files["iNat2017"] == "inat_train"
    assert paper.trained("iNat2017") == tmp_path / "inception_v3_iNat_299"


def test_domain_settings_that_are_given(tmp_path):
    (tmp_path / "resnet_101_JFT_299").mkdir()
    own = domain(tmp_path, sources="moths, bees", targets="wasps", min_count="5", top_k=3)
    assert own.networks == [tmp_path / "moths", tmp_path / "bees"]
    assert (own.sources, own.targets) == (["moths", "bees"], ["wasps"])
    assert (own.normalize, own.gamma, own.min_count, own.top_k) == (True, 1, 5, 3)
    assert own.trained("moths") == tmp_path / "moths" and not own.is_published
    one = domain(tmp_path, sources="moths,bees", networks="other", normalize_features="0")
    assert (one.networks, one.normalize, one.gamma) == ([tmp_path / "other"], False, 0.01)
    assert domain(tmp_path, sources="moths,").sources == ["moths"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_count": "few"}, "MIN_COUNT=few: expected a whole number, at least 1, or nothing"),
        ({"top_k": 0}, "TOP_K=0: expected a whole number, at least 1, or nothing"),
        ({"gamma": "nan"}, "GAMMA=nan: expected a number, at least 0, or nothing"),
        ({"normalize_features": "2"}, "NORMALIZE_FEATURES=2: expected a whole number, 0 to 1, or"),
    ],
)
def test_invalid_numbers(tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        domain(tmp_path, **given)


def test_images_of_all_domains_or_of_none(tmp_path, monkeypatch):
    for network in ("moths", "bees"):
        write(tmp_path / network, "moths", "bees", "wasps")
    own = domain(tmp_path, sources="moths,bees", targets="wasps")
    images = load_domain_features(own)
    assert {name: found.values.shape for name, found in images.items()} == dict.fromkeys(
        ("moths", "bees", "wasps"), (3, 4)
    )
    with monkeypatch.context() as patch:
        patch.setattr("slim.transfer.notebooks.MOST_VALUES", 10)
        assert load_domain_features(own) == {}
    (tmp_path / "bees/wasps_feature_train.npy").unlink()
    assert load_domain_features(own) == {}
