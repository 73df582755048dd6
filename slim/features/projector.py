"""Features for TensorBoard's projector, with thumbnails and class names."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector import EmbeddingInfo, ProjectorConfig

from slim.common.cores import available_cores
from slim.common.errors import UserError
from slim.common.files import make_folder, replacing, write_whole
from slim.common.progress import progress
from slim.datasets.images import ImageError, load_thumbnail
from slim.datasets.lists import CLASSES, Entry
from slim.datasets.registry import read_class_names
from slim.features.files import FeatureSplit

CONFIG = "projector_config.pbtxt"
MOST_IMAGES = 5000  # per split; the browser computes with all of them
SPRITE_SIDE = 8192  # pixels, the most that TensorBoard accepts
THUMBNAIL_SIDE = 64


def write_projector(splits: Sequence[FeatureSplit], folder: Path) -> None:
    """Writes the features of lists for the projector.

    Of lists with more than 5,000 images, evenly spaced ones are written.

    Args:
        splits: The lists, whose features exist.
        folder: Receives `projector_config.pbtxt`, and for each list the features (float32), the
            class of each image, and a picture of all thumbnails. Lists that it already has stay.

    Raises:
        UserError: The folder cannot be made, or an image cannot be read.
    """
    make_folder(folder, "output_dir")
    config, path = ProjectorConfig(), folder / CONFIG
    if path.exists():
        text_format.Parse(path.read_text(), config)
    for split in splits:
        name = split.feature_path.stem
        others = [each for each in config.embeddings if each.tensor_name != name]
        del config.embeddings[:]
        config.embeddings.extend(others)
        embedding = config.embeddings.add(tensor_name=name)
        _write_split(split, folder, embedding)
        write_whole(path, text_format.MessageToString(config))
    print(f"projector: tensorboard --logdir={folder}", flush=True)


def _write_split(split: FeatureSplit, folder: Path, embedding: EmbeddingInfo) -> None:
    """Writes the files of a list and sets the fields of its embedding."""
    features = np.load(split.feature_path, mmap_mode="r")
    step = -(-len(features) // MOST_IMAGES)
    chosen, entries = features[::step], split.image_list.entries[::step]
    columns = int(np.ceil(np.sqrt(len(entries))))
    side = min(THUMBNAIL_SIDE, SPRITE_SIDE // columns)
    tensors, metadata, sprite = (
        folder / f"{embedding.tensor_name}{ending}" for ending in (".bytes", ".tsv", ".png")
    )
    with replacing(tensors) as temporary:
        temporary.write_bytes(np.ascontiguousarray(chosen, "<f4").tobytes())
    write_whole(metadata, _compose_metadata(split, entries))
    with replacing(sprite) as temporary:
        draw_sprite(split, entries, columns, side).save(temporary, "PNG")
    embedding.tensor_shape.extend(chosen.shape)
    embedding.tensor_path = tensors.name
    embedding.metadata_path = metadata.name
    embedding.sprite.image_path = sprite.name
    embedding.sprite.single_image_dim.extend([side, side])


def _compose_metadata(split: FeatureSplit, entries: Sequence[Entry]) -> str:
    """Returns the class and the path of each image, separated by tabs, after a header."""
    names = dict(enumerate(read_class_names(split.folder / CLASSES, None) or ()))
    rows = [("class", "label", "image")]
    for entry in entries:
        label = str(entry.label)
        rows.append((names.get(entry.label, label), label, entry.path))
    return "".join("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in rows)


def draw_sprite(
    split: FeatureSplit, entries: Sequence[Entry], columns: int, side: int
) -> Image.Image:
    """Draws thumbnails in rows, as many as columns; the rest stays black.

    Args:
        split: The list, for the folder of its images.
        entries: The images.
        columns: Thumbnails per row.
        side: Height and width of a thumbnail in pixels.

    Raises:
        UserError: An image cannot be read.
    """

    def load(entry: Entry) -> Image.Image:
        try:
            return load_thumbnail(split.folder / entry.path, side).resize((side, side))
        except ImageError as error:
            raise UserError(
                f"--projector: {split.folder / entry.path}: {error}; restore the image, or leave "
                "--projector out: the features are complete"
            ) from error

    sprite = Image.new("RGB", (columns * side, columns * side))
    with ThreadPoolExecutor(available_cores()) as pool:
        thumbnails = pool.map(load, entries)
        shown = progress(
            f"{split.name} thumbnails", len(entries), " images", items=thumbnails, delay=1
        )
        for i, thumbnail in enumerate(shown):
            sprite.paste(thumbnail, (i % columns * side, i // columns * side))
    return sprite
