"""Datasets of TensorFlow Datasets (TFDS), by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slim.common.errors import UserError
from slim.common.files import exclusive, make_folder, replacing
from slim.common.progress import progress
from slim.datasets.listed import ListedDataset
from slim.datasets.lists import Entry

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

IMAGE, LABEL = "image", "label"  # the features that TFDS' classification datasets have
_ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PN": ".png", b"GIF": ".gif", b"BM": ".bmp"}


def read_tfds(name: str, splits: Sequence[str], folder: Path) -> ListedDataset:
    """Downloads a dataset with TFDS, and writes its images, as they are encoded, to files.

    The folder receives `<name>-<version>/<split>/<index>.jpg`. Existing files are kept.
    """
    # 1. Download it, and check the names of the splits.
    builder = _download(name)
    available = list(builder.info.splits)
    if not splits:
        splits = ("train", "validation" if "validation" in available else "test")
    for part in (part.partition("[")[0] for split in splits for part in split.split("+")):
        if part not in available:
            raise UserError(
                f"--tfds_splits={','.join(splits)}: {name} has no split '{part}', but "
                f"{', '.join(available)}"
            )
    # 2. Write the images.
    folder /= builder.info.full_name.replace("/", "-")  # of this version
    make_folder(folder, "dataset_dir")
    with exclusive(folder):
        found = {
            split_name: _write_images(builder, split, folder)
            for split_name, split in zip(("train", "validation"), splits, strict=True)
        }
    return ListedDataset(folder, found, builder.info.features[LABEL].names)


def _download(name: str) -> "tfds.core.DatasetBuilder":
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
        from tensorflow_datasets.core.download.extractor import ExtractError
        from tensorflow_datasets.core.download.util import DownloadError
    except ImportError as error:
        raise UserError(
            f"--from_tfds={name} requires TensorFlow Datasets ({error}): install it with "
            "'pip install tensorflow-datasets importlib_resources'"
        ) from error
    # 1. The dataset by its name.
    try:
        builder = tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--from_tfds={name}: TensorFlow Datasets has no such dataset ({reason}); expected a "
            "name of its catalog, such as oxford_flowers102"
        ) from error
    # 2. Its features, which are known before the download.
    features = builder.info.features
    for key, kind in {IMAGE: tfds.features.Image, LABEL: tfds.features.ClassLabel}.items():
        if key not in features or not isinstance(features[key], kind):
            raise UserError(
                f"--from_tfds={name}: has the features {', '.join(features)}, expected an image "
                f"'{IMAGE}' and a class '{LABEL}'"
            )
    # 3. The download, which TFDS resumes.
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise UserError(f"--from_tfds={name} requires another package ({error})") from error
    except (NonMatchingChecksumError, DownloadError, ExtractError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--from_tfds={name} cannot be downloaded ({reason}); run the command again to resume"
        ) from error
    return builder


def _write_images(builder: "tfds.core.DatasetBuilder", split: str, folder: Path) -> list[Entry]:
    """Writes the images of a split unless they exist, and returns their paths and labels."""
    import tensorflow_datasets as tfds

    examples = tfds.as_numpy(
        builder.as_dataset(
            split=split,
            decoders={IMAGE: tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(interleave_cycle_length=1),  # the order of the files
        )
    )
    (folder / split).mkdir(exist_ok=True)
    entries, total = [], builder.info.splits[split].num_examples
    for index, example in enumerate(progress(split, total, " images", items=examples, delay=1)):
        content = example[IMAGE]
        endings = (ending for start, ending in _ENDINGS.items() if content.startswith(start))
        path = Path(split, f"{index:06d}{next(endings, '.jpg')}")
        if not (folder / path).exists():
            with replacing(folder / path) as temporary:
                temporary.write_bytes(content)
        entries.append(Entry(path.as_posix(), int(example[LABEL])))
    return entries
