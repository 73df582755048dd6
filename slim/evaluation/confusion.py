"""The confusion matrix as a picture."""

import io

import numpy as np
from PIL import Image, ImageColor

from slim.common.figures import RIGHT, WRONG
from slim.evaluation.predictions import share

PICTURE_SIDE = 1024  # pixels, at most
CELL_SIDES = (4, 64)  # pixels; if cells would be smaller, classes share cells
MOST_CELLS = PICTURE_SIDE // CELL_SIDES[0]
GRID = 8  # pixels; cells of this size and larger are separated by a line
EMPTY = 232  # grey
CONTRAST = 0.5  # the exponent that makes small shares visible


def confusion_colours(confusion: np.ndarray) -> np.ndarray:
    """Returns the colours of a confusion matrix, as TensorBoard and the notebooks show it.

    They are uint8 `[cells, cells, 3]`, with at most 256 cells. Correct predictions on the diagonal
    are blue, wrong ones orange, darker for larger shares of a row; rows without images are grey.
    """
    # With more than 256 classes neighbours share a cell. The diagonal shows their mean accuracy,
    # other cells their largest share: a confused pair stays visible unless it is within a cell of
    # the diagonal.
    num_classes = len(confusion)
    together = -(-num_classes // MOST_CELLS)
    cells = -(-num_classes // together)
    # Only cells that are not zero are visited: 5,089 classes have 26 million.
    true, predicted = np.nonzero(confusion)
    counts = confusion[true, predicted]
    totals = np.bincount(true, weights=counts, minlength=num_classes)
    right = share(confusion.diagonal(), totals)
    places = np.arange(num_classes) // together

    # 1. Wrong predictions. The diagonal is drawn over afterwards.
    wrong = np.zeros((cells, cells))
    np.maximum.at(wrong, (places[true], places[predicted]), counts / totals[true])
    colours = _shade(wrong, WRONG)
    # 2. Rows without images, then the diagonal.
    counted = np.bincount(places, weights=totals > 0, minlength=cells)
    colours[counted == 0] = EMPTY
    mean = share(np.bincount(places, weights=np.nan_to_num(right), minlength=cells), counted)
    known = np.flatnonzero(counted)
    colours[known, known] = _shade(mean[known], RIGHT)
    return colours


def confusion_picture(confusion: np.ndarray) -> bytes:
    """Returns `confusion_colours` as the content of a PNG file, at most 1,024 pixels wide."""
    pixels = confusion_colours(confusion)
    side = min(CELL_SIDES[1], PICTURE_SIDE // len(pixels))
    pixels = pixels.repeat(side, axis=0).repeat(side, axis=1)
    if side >= GRID:
        pixels[side - 1 :: side] = pixels[:, side - 1 :: side] = EMPTY
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return content.getvalue()


def _shade(shares: np.ndarray, colour: str) -> np.ndarray:
    """Returns colours from white for 0 to `colour` for 1, uint8 with a last axis of three."""
    depth = np.asarray(shares)[..., np.newaxis] ** CONTRAST
    return np.round(255 - depth * (255 - np.array(ImageColor.getrgb(colour)))).astype(np.uint8)
