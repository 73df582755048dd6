"""The worst mistakes of an evaluation as a picture."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from slim.common.compat import tf
from slim.datasets.registry import Dataset
from slim.datasets.tfrecord import read_records
from slim.evaluation.predictions import NOT_FINITE, Predictions

COLUMNS, ROWS = 4, 4
SIDE, MARGIN, FONT = 192, 8, 13  # pixels
LINE = FONT + 4
COLOURS = {"predicted": (190, 60, 0), "truth": (0, 70, 130)}  # as in the confusion matrix


def worst_mistakes(predictions: Predictions, count: int = COLUMNS * ROWS) -> np.ndarray:
    """Returns the images with the highest probability of a wrong class.

    Args:
        predictions: The predictions.
        count: Maximum number of images.

    Returns:
        Their indices, int64 `[any]`, the highest probability first. Images whose logits are not
        finite are left out.
    """
    wrong = ~predictions.correct & (predictions.top[:, 0] != NOT_FINITE)
    order = np.argsort(-predictions.probabilities[:, 0], kind="stable")
    return order[wrong[order]][:count]


def mistakes_picture(predictions: Predictions, dataset: Dataset) -> bytes | None:
    """Draws the worst mistakes, each with the predicted class, its probability and the true class.

    Args:
        predictions: The predictions for the images of the dataset, in the order of its shards.
        dataset: The evaluated split.

    Returns:
        The content of a PNG file; None without mistakes.
    """
    indices = worst_mistakes(predictions).tolist()
    records = read_records(dataset.files, indices) if indices else {}
    indices = [index for index in indices if index in records]  # all, unless the shards are gone
    if not indices:
        return None
    captions = [
        {
            "predicted": f"{predictions.class_name(predictions.top[i, 0])} "
            f"{predictions.probabilities[i, 0]:.0%}",
            "truth": predictions.class_name(predictions.labels[i]),
        }
        for i in indices
    ]
    return _draw([_decode(records[index]) for index in indices], captions)


def _decode(record: bytes) -> Image.Image:
    features = tf.train.Example.FromString(record).features.feature
    encoded = features["image/encoded"].bytes_list.value[0]
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def _draw(images: Sequence[Image.Image], captions: Sequence[dict[str, str]]) -> bytes:
    """Draws images in rows with their captions below."""
    width, height = SIDE + MARGIN, SIDE + 2 * LINE + MARGIN
    columns = min(COLUMNS, len(images))
    size = (columns * width + MARGIN, -(-len(images) // columns) * height + MARGIN)
    picture = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = MARGIN + i % columns * width, MARGIN + i // columns * height
        picture.paste(ImageOps.pad(image, (SIDE, SIDE), color="white"), (left, top))
        for line, (kind, text) in enumerate(caption.items()):
            while draw.textlength(text, font) > SIDE:  # a long name keeps its end
                text = f"…{text[2:]}"
            place = (left, top + SIDE + line * LINE)
            draw.text(place, text, fill=COLOURS[kind], font=font)
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()
