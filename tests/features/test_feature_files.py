"""Tests of feature files after kills at every moment and on a full disk, without a network."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from slim.common.errors import UserError
from slim.common.files import writing_to
from slim.feature_extraction import merge, warn_if_stale
from slim.features.feature_files import (
    FeatureSplit,
    RowWriter,
    Settings,
    extract_missing,
    feature_files,
    find_split,
    is_extracted,
)
from tests.datasets.conftest import file_size_limit

DEPTH, SPLITS = 3, ("train", "val")
CHANGES = ("open", "os.rename", "os.remove")


class Kill(BaseException):
    """Stands for a kill."""


class Killer:
    """Raises `Kill` instead of a change to the files of a folder, and of all changes after it."""

    def __init__(self) -> None:
        self.left = None  # changes until the kill
        self.folder = ""
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple) -> None:
        if self.left is None or event not in CHANGES or self.folder not in str(arguments[0]):
            return
        if event == "open" and "r" in (arguments[1] or "r"):
            return
        self.left -= 1
        if self.left < 0:
            raise Kill


killer = Killer()


@contextmanager
def killed_before(change: int, folder: Path) -> Iterator[None]:
    """Raises `Kill` before the change of that number, from 0."""
    killer.left, killer.folder = change, str(folder)
    try:
        yield
    finally:
        killer.left = None


class FakeExtractor:
    """Makes features from a number that stands for the network, and the name of the image."""

    depth = DEPTH

    def __init__(self, network: int) -> None:
        self._network = network

    def features(self, paths: Sequence[str], apply_orientation: bool) -> Iterator[np.ndarray]:
        for path in paths:
            yield np.full((1, DEPTH), 100 * self._network + int(Path(path).stem), np.float32)

    def __enter__(self) -> "FakeExtractor":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def settings_of(network: int) -> Settings:
    return Settings("inception_v3", f"hash {network}", False, "PreLogits", 299)


def write_lists(folder: Path, network: int) -> None:
    """Writes lists whose labels tell the networks apart."""
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        lines = [f"{index}.jpg: {10 * network + index}\n" for index in range(3)]
        (folder / f"{split}.txt").write_text("".join(lines))


def extract(data: Path, output: Path, network: int) -> list[FeatureSplit]:
    write_lists(data / "birds", network)
    splits = [find_split("birds", split, str(data), output) for split in SPLITS]
    settings = settings_of(network)
    extract_missing(splits, settings, lambda: FakeExtractor(network))
    merge(splits, settings, feature_files(output, "birds", None))
    return splits


def check_pair(files: tuple[Path, Path], network: int, copies: int = 1) -> None:
    features, labels = map(np.load, files)
    numbers = np.tile(np.arange(3), copies)
    np.testing.assert_array_equal(features[:, 0], 100 * network + numbers)
    np.testing.assert_array_equal(labels, 10 * network + numbers)


def check_files(output: Path) -> int:
    """Checks that features and labels belong together, and returns the number of pairs."""
    pairs = 0
    for split in (*SPLITS, None):
        files = feature_files(output, "birds", split)
        if files[0].exists():
            network = int(np.load(files[0])[0, 0]) // 100
            check_pair(files, network, 1 if split else 2)
            pairs += 1
    return pairs


def test_no_kill_pairs_features_with_the_labels_or_the_description_of_others(tmp_path):
    for change in count():
        output = tmp_path / str(change)
        output.mkdir()
        extract(tmp_path, output, 1)
        try:
            with killed_before(change, output):
                extract(tmp_path, output, 2)
        except Kill:
            pass
        else:
            break
        check_files(output)
        for network in (1, 2):
            splits = extract(tmp_path, output, network)
            assert check_files(output) == 3
            assert all(is_extracted(split, settings_of(network)) for split in splits)
            for split in (*SPLITS, None):
                check_pair(feature_files(output, "birds", split), network, 1 if split else 2)
        assert not list(output.glob("*.tmp")) + list(output.glob(".*"))
    assert change > 10


def test_merged_files_follow_their_parts_with_any_modification_times(tmp_path, capsys):
    splits, files = extract(tmp_path, tmp_path, 1), feature_files(tmp_path, "birds", None)
    extract_missing(splits, settings_of(2), lambda: FakeExtractor(2))
    warn_if_stale(splits, settings_of(2), files)
    assert (
        "birds_feature.npy was merged from other features: --merge_spl" in capsys.readouterr().err
    )
    for part in splits:
        os.utime(part.feature_path, (0, 0))
    for _ in range(2):
        merge(splits, settings_of(2), files)
        np.testing.assert_array_equal(np.load(files[0])[:, 0], np.tile([200, 201, 202], 2))
    assert capsys.readouterr().out.count("birds_feature.npy") == 1
    warn_if_stale(splits[:1], settings_of(2), files)
    assert not capsys.readouterr().err


def test_an_unfinished_extraction_is_kept_until_another_one_is_finished(tmp_path):
    """Another checkpoint may have been given by mistake."""

    class Interrupted(FakeExtractor):
        def features(self, *call) -> Iterator[np.ndarray]:
            for _, rows in zip(range(2), super().features(*call), strict=False):
                yield rows
            raise KeyboardInterrupt

    write_lists(tmp_path / "birds", 1)
    splits = [find_split("birds", "train", str(tmp_path), tmp_path)]
    for network in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            extract_missing(splits, settings_of(network), partial(Interrupted, network))
    sizes = [path.stat().st_size for path in tmp_path.glob(".*.part")]
    assert sizes == [128 + 2 * 4 * DEPTH] * 2
    extract_missing(splits, settings_of(1), lambda: FakeExtractor(1))
    assert not list(tmp_path.glob(".*.part"))


def test_a_full_disk_loses_nothing_and_is_one_line(tmp_path):
    write_lists(tmp_path / "birds", 1)
    splits = [find_split("birds", split, str(tmp_path), tmp_path) for split in SPLITS]
    arguments = splits, settings_of(1), lambda: FakeExtractor(1)
    with (
        file_size_limit(128 + 4 * DEPTH),
        pytest.raises(UserError, match=r"cannot write .*: File too large; fix this or choose"),
        writing_to(tmp_path, "output_dir"),
    ):
        extract_missing(*arguments)
    extract_missing(*arguments)
    files = feature_files(tmp_path, "birds", None)
    with file_size_limit(128 + 4 * 4 * DEPTH), pytest.raises(OSError, match="File too large"):
        merge(splits, settings_of(1), files)
    merge(splits, settings_of(1), files)
    assert check_files(tmp_path) == 3


@pytest.mark.parametrize("at_most", [50, 2.5 * 4 * 1000])
def test_a_full_disk_is_noticed_and_complete_rows_are_kept(tmp_path, at_most):
    """The system writes the part that fits and returns its size, without an error."""
    depth = 1000
    path, rows = tmp_path / "rows.part", np.random.default_rng(0).random((5, depth), np.float32)
    with (
        file_size_limit(int(at_most)),
        pytest.raises(OSError, match="File too large"),
        RowWriter(path, len(rows), depth) as writer,
    ):
        writer.append(rows)
    with RowWriter(path, len(rows), depth) as writer:
        assert writer.rows == (at_most > 50) * 2
        writer.append(rows[writer.rows :])
    np.testing.assert_array_equal(np.load(path), rows)
