"""The worst mistakes of an evaluation as a picture."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from slim.common.compat import tf
from slim.common.figures import RIGHT, WRONG
from slim.datasets.registry import Dataset
from slim.datasets.tfrecord import read_records
from slim.evaluation.predictions import NOT_FINITE, Predictions

COLUMNS, ROWS = 4, 4
SIDE, MARGIN, FONT = 192, 8, 13  # pixels
LINE = FONT + 4


def worst_mistakes(predictions: Predictions, count: int = COLUMNS * ROWS) -> np.ndarray:
    """Returns the indices of the images with the highest probability of a wrong class."""
    wrong = ~predictions.correct & (predictions.top[:, 0] != NOT_FINITE)
    order = np.argsort(-predictions.probabilities[:, 0], kind="stable")
    return order[wrong[order]][:count]


def mistakes_picture(predictions: Predictions, dataset: Dataset) -> bytes | None:
    """Draws the worst mistakes with their predicted and true classes, as PNG; None without any."""
    indices = worst_mistakes(predictions).tolist()
    records = read_records(dataset.files, indices) if indices else {}
    indices = [index for index in indices if index in records]  # all, unless the shards are gone
    if not indices:
        return None

    # 1. An empty picture of the size of the grid.
    width, height = SIDE + MARGIN, SIDE + 2 * LINE + MARGIN
    columns = min(COLUMNS, len(indices))
    size = (columns * width + MARGIN, -(-len(indices) // columns) * height + MARGIN)
    picture = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)

    # 2. Each image, with two lines below it.
    for place, index in enumerate(indices):
        left, top = MARGIN + place % columns * width, MARGIN + place // columns * height
        features = tf.train.Example.FromString(records[index]).features.feature
        encoded = features["image/encoded"].bytes_list.value[0]
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        picture.paste(ImageOps.pad(image, (SIDE, SIDE), color="white"), (left, top))
        predicted = predictions.class_name(predictions.top[index, 0])
        captions = (
            (f"{predicted} {predictions.probabilities[index, 0]:.0%}", WRONG),
            (predictions.class_name(predictions.labels[index]), RIGHT),
        )
        for line, (text, colour) in enumerate(captions):
            while draw.textlength(text, font) > SIDE:  # a long name keeps its end
                text = f"…{text[2:]}"
            draw.text((left, top + SIDE + line * LINE), text, fill=colour, font=font)
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()
