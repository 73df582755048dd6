"""Contents of figures, for tests."""

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def drawn(figure: Figure) -> tuple[list[Axes], str]:
    """Draws a figure and returns its axes and all its text."""
    figure.canvas.draw()
    assert not pyplot.get_fignums()  # pyplot has no figure to show
    texts = [text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))]
    return figure.axes, "\n".join(texts)


def images(axes: list[Axes]) -> int:
    """Returns the number of images."""
    return sum(len(axis.images) for axis in axes)
