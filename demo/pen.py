"""A pen that fills shapes, each in a coordinate frame of its own.

Points are an array `[n, 2]`, or text such as "0,-.06 .15,-.02". An object spans about -1 to 1 in
both directions; x points to its front and y down.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike
from PIL import ImageDraw

COLOURS = {
    "black": (38, 36, 40), "white": (246, 244, 238), "cream": (238, 224, 190),
    "grey": (150, 152, 156), "slate": (88, 106, 134), "olive": (126, 130, 66),
    "russet": (164, 92, 50), "brown": (106, 76, 54), "tan": (202, 168, 120),
    "yellow": (244, 206, 56), "orange": (236, 138, 44), "red": (204, 46, 44),
    "pink": (238, 150, 182), "violet": (140, 92, 190), "blue": (62, 112, 198),
    "teal": (48, 142, 146), "green": (84, 146, 66), "moss": (70, 118, 54), "glass": (70, 92, 112),
}  # fmt: skip
PAINTS = ("red", "blue", "slate", "white", "black", "teal", "yellow", "grey", "olive", "orange")


def parse_points(points: ArrayLike) -> np.ndarray:
    """Returns points as an array, `[n, 2]`."""
    if isinstance(points, str):
        points = [word.split(",") for word in points.split()]
    return np.array(points, float)


def divide_circle(count: int, start: float = 0.0) -> np.ndarray:
    """Returns angles that divide the circle into equal parts, `[count]`."""
    return start + np.arange(count) * math.tau / count


def polar(radius: ArrayLike, angle: ArrayLike) -> np.ndarray:
    """Returns the points with these polar coordinates, `[..., 2]`."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


# Catmull-Rom polynomials: coefficients of 1, t, t**2 and t**3 for each of four points in a row.
_CUBICS = np.array([(0, -1, 2, -1), (2, 0, -5, 3), (0, 1, 4, -3), (0, 0, -1, 1)]) / 2
_BASIS = np.vander((0, 0.2, 0.4, 0.6, 0.8), 4, increasing=True) @ _CUBICS.T
_CIRCLE = polar(1, divide_circle(28))


def _smooth(points: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns the Catmull-Rom curve through points, given those before and after them."""
    padded = np.concatenate([before, points, after])
    fours = padded[np.arange(len(padded) - 3)[:, None] + np.arange(4)]
    return (_BASIS @ fours).reshape(-1, 2)


@dataclass(frozen=True)
class Pen:
    """Fills shapes on an image.

    A colour such as "red" or "red*.8", which is darker, is a name in `COLOURS` or in `paints`.
    Nothing is drawn in the colour "".
    """

    image: ImageDraw.ImageDraw
    place: Callable[[np.ndarray], np.ndarray] = np.asarray  # from the pen's frame to pixels
    tint: Sequence[float] = (1, 1, 1)  # factors of red, green and blue
    paints: Mapping[str, str] = field(default_factory=dict)  # such as the traits of a subject

    def frame(self, origin: ArrayLike, axes: ArrayLike = ((1, 0), (0, 1))) -> "Pen":
        """Returns a pen with another frame, given by its origin and unit vectors in this one."""
        return replace(self, place=lambda points: self.place(points @ axes + origin))

    def turned(self, origin: ArrayLike, angle: float, scale: ArrayLike = 1) -> "Pen":
        """Returns a pen whose frame is scaled, rotated clockwise and moved to an origin."""
        return self.frame(origin, polar(scale, (angle, angle + math.pi / 2)))

    def bent(self, bend: float) -> "Pen":
        """Returns a pen whose x axis is bent to a parabola."""
        return replace(self, place=lambda p: self.place(p + bend * p[:, :1] ** 2 * (0, 1)))

    def poly(self, points: ArrayLike, colour: str) -> None:
        name, _, shade = colour.partition("*")
        if name := self.paints.get(name, name):
            lit = [value * tint for value, tint in zip(COLOURS[name], self.tint, strict=True)]
            ink = [min(round(value * float(shade or 1)), 255) for value in lit]
            self.image.polygon(self.place(parse_points(points)).ravel().tolist(), (*ink, 255))

    def blob(self, points: ArrayLike, colour: str) -> None:
        """Fills the smooth closed curve through the points."""
        points = parse_points(points)
        self.poly(_smooth(points, points[-1:], points[:2]), colour)

    def oval(self, points: ArrayLike, colour: str) -> None:
        """Fills an ellipse, given by its centre and half axes."""
        centre, radii = parse_points(points)
        self.poly(centre + radii * _CIRCLE, colour)

    def box(self, corners: ArrayLike, colour: str) -> None:
        """Fills a rectangle, given by its upper left and its lower right corner."""
        (left, top), (right, bottom) = parse_points(corners)
        self.poly(((left, top), (right, top), (right, bottom), (left, bottom)), colour)

    def line(self, points: ArrayLike, colour: str, width: float, end: float | None = None) -> None:
        """Draws a smooth line, whose width changes to `end` (default: stays the same)."""
        path = parse_points(points)
        if len(path) > 2:
            path = np.concatenate([_smooth(path, path[:1], path[-1:]), path[-1:]])
        padded = np.concatenate([path[:1], path, path[-1:]])
        along = padded[2:] - padded[:-2]
        half = np.linspace(width, end or width, len(path)) / 2 / np.hypot(*along.T)
        normal = along[:, ::-1] * (-1, 1) * half[:, None]
        self.poly(np.concatenate([path + normal, (path - normal)[::-1]]), colour)

    def draw(self, recipe: str) -> None:
        """Draws shapes separated by `;`: a method's name, a colour, points and a line's widths."""
        for shape in recipe.split(";"):
            kind, colour, *words = shape.split()
            points = [word.split(",") for word in words if "," in word]
            widths = [float(word) for word in words if "," not in word]
            getattr(self, kind)(points, colour, *widths)
