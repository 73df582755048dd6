"""Parts that several figures share: colours, fonts, accuracy against class size, and saving."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slim.common.errors import UserError
from slim.common.files import replacing, this_process

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontEntry

# All but the last are from Okabe and Ito: colour-blind people can tell them apart.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7f6b00"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
INK = "#333333"  # text
RIGHT, WRONG = "#004682", "#be3c00"  # blue and orange, dark enough for text
FIFTHS = 5
TICKS = 5
OPAQUE = 250  # with more classes than this, points become more transparent


def fit_font(text: str) -> "tuple[FontEntry | None, str]":
    """Returns a font of this machine for a text, and the text with escapes for what it lacks.

    Matplotlib finds the fonts. Without it or without a better font, the font is None, the default,
    and all but ASCII is escaped.
    """
    wanted = set() if text.isascii() else set("".join(text.split()))
    font, found = None, {character for character in wanted if character.isascii()}
    for candidate in _fonts() if wanted else ():
        glyphs = _glyphs(candidate.fname)
        characters = {character for character in wanted if ord(character) in glyphs}
        if len(characters) > len(found):
            font, found = candidate, characters
        if found == wanted:
            break
    escaped = (
        character if character.isascii() or character in found else ascii(character)[1:-1]
        for character in text
    )
    return font, "".join(escaped)


@cache
def _fonts() -> "list[FontEntry]":
    """Returns the fonts that Matplotlib finds: its own first, then upright ones of usual weight."""
    try:
        from matplotlib.font_manager import fontManager
    except ModuleNotFoundError:
        return []

    def preference(font: "FontEntry") -> tuple:
        usual = font.style == "normal" and font.weight in (400, "normal", "regular")
        return font.name != "DejaVu Sans", not usual, font.name

    # A font of last resort draws boxes for all characters.
    fonts = (font for font in fontManager.ttflist if "Last Resort" not in font.name)
    return sorted(fonts, key=preference)


@cache
def _glyphs(file: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    try:
        opened = get_font(file)
        return frozenset(opened.get_charmap() if opened.scalable else ())
    except (OSError, RuntimeError):
        return frozenset()


def legible(figure: "Figure") -> "Figure":
    """Gives each text of a figure a font that has its characters, and returns the figure."""
    from matplotlib.text import Text

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        names = [label.get_text() for label in axis.get_ticklabels()]
        fitted = [fit_font(name)[1] for name in names]
        if fitted != names:
            axis.set_ticks(axis.get_ticklocs(), fitted)
    for text in figure.findobj(Text):
        font, fitted = fit_font(text.get_text())
        text.set(text=fitted, parse_math="\\math" in fitted)  # names may have dollars, too
        if font:
            text.set_fontfamily([font.name])
    return figure


def draw_class_accuracy(
    axes: "Axes",
    class_sizes: np.ndarray,
    class_accuracy: np.ndarray,
    *,
    colours: tuple[str, str],
    labels: tuple[str, str],
) -> None:
    """Draws the accuracy of each class against its size, and the mean of each fifth of the classes.

    `class_sizes` are training images per class, `class_accuracy` is NaN without images, both `[C]`.
    `colours` and `labels` are those of the points and of the line.
    """
    # 1. A point for each class that has training and validation images.
    shown = np.isfinite(class_accuracy) & (class_sizes > 0)
    sizes, accuracy = class_sizes[shown], class_accuracy[shown]
    alpha = min(0.5, OPAQUE / max(1, len(sizes)))
    axes.scatter(sizes, accuracy, color=colours[0], alpha=alpha, label=labels[0], clip_on=False)
    # 2. The means of fifths of the classes by size, on a logarithmic axis.
    if len(np.unique(sizes)) > 1:
        groups = np.array_split(np.argsort(sizes, kind="stable"), min(FIFTHS, len(sizes)))
        means = np.array([(sizes[group].mean(), accuracy[group].mean()) for group in groups])
        axes.plot(*means.T, color=colours[1], marker="s", label=labels[1])
        axes.set_xscale("log")
        ticks = np.unique(np.geomspace(sizes.min(), sizes.max(), TICKS).round().astype(int))
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.set(xlabel="training images of the class", ylabel="accuracy", ylim=(0, 1))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    try:
        with replacing(path, this_process()) as temporary:
            legible(figure).savefig(temporary, format="png", dpi=120)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; free some space or choose another path"
        ) from error
