"""A pen that fills shapes, each in a coordinate frame of its own.

Points are pairs of numbers, or text such as "0,-.06 .15,-.02". An object spans about -1 to 1 in
both directions; x points to its front and y down.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from PIL import ImageDraw

Point = tuple[float, float]
Points = str | Sequence[Point]

COLOURS = {
    "black": (38, 36, 40), "white": (246, 244, 238), "cream": (238, 224, 190),
    "grey": (150, 152, 156), "slate": (88, 106, 134), "olive": (126, 130, 66),
    "russet": (164, 92, 50), "brown": (106, 76, 54), "tan": (202, 168, 120),
    "yellow": (244, 206, 56), "orange": (236, 138, 44), "red": (204, 46, 44),
    "pink": (238, 150, 182), "violet": (140, 92, 190), "blue": (62, 112, 198),
    "teal": (48, 142, 146), "green": (84, 146, 66), "leaf": (70, 118, 54), "glass": (70, 92, 112),
}  # fmt: skip
PAINTS = ("red", "blue", "slate", "white", "black", "teal", "yellow", "grey", "olive", "orange")


def parse_points(points: Points) -> Sequence[Point]:
    """Returns points as pairs of numbers."""
    return _parse(points) if isinstance(points, str) else points


@cache
def _parse(text: str) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in (word.split(",") for word in text.split()))


def divide_circle(count: int, start: float = 0.0) -> Iterable[float]:
    """Yields angles that divide the circle into equal parts."""
    return (start + i * math.tau / count for i in range(count))


def polar(radius: float, angle: float) -> Point:
    """Returns the point with these polar coordinates."""
    return radius * math.cos(angle), radius * math.sin(angle)


def _curve(points: Sequence[Point], closed: bool) -> list[Point]:
    """Returns points of the Catmull-Rom curve through the given points."""
    first, last = (points[-1], points[:2]) if closed else (points[0], points[-1:])
    padded = [first, *points, *last]
    curve = []
    for i in range(len(padded) - 3):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = padded[i : i + 4]
        for a, b, c, d in _BASIS:
            curve.append((a * ax + b * bx + c * cx + d * dx, a * ay + b * by + c * cy + d * dy))
    return curve if closed else [*curve, points[-1]]


_BASIS = [
    ((2 * t**2 - t - t**3) / 2, (2 - 5 * t**2 + 3 * t**3) / 2, (t + 4 * t**2 - 3 * t**3) / 2,
     (t**3 - t**2) / 2)
    for t in (0, 0.2, 0.4, 0.6, 0.8)
]  # fmt: skip
_CIRCLE = [polar(1, angle) for angle in divide_circle(28)]


class Pen:
    """Fills shapes on an image.

    Args:
        draw: The image.
        pose: Maps a point in object coordinates to a pixel.
        tint: Factors of red, green and blue.
        axes: The frame: the unit vectors in x and y and the origin, two numbers each.
    """

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        pose: Callable[[float, float], Point],
        tint: Sequence[float],
        axes: Sequence[float] = (1, 0, 0, 1, 0, 0),
    ):
        self._draw, self._pose, self._tint, self._axes = draw, pose, tint, axes

    def frame(self, origin: Point, right: Point = (1, 0), down: Point = (0, 1)) -> "Pen":
        """Returns a pen with another frame, given by its origin and unit vectors in this one."""
        a, b, c, d, e, f = self._axes
        axes = [value for x, y in (right, down) for value in (a * x + c * y, b * x + d * y)]
        x, y = origin
        axes += (a * x + c * y + e, b * x + d * y + f)
        return Pen(self._draw, self._pose, self._tint, axes)

    def turned(self, origin: Point, angle: float) -> "Pen":
        """Returns a pen whose frame is moved to an origin and rotated, clockwise on the image."""
        return self.frame(origin, polar(1, angle), polar(1, angle + math.pi / 2))

    def polygon(self, points: Points, colour: str, shade: float = 1.0) -> None:
        """Fills a polygon with a named colour, made darker (shade < 1) or lighter."""
        a, b, c, d, e, f = self._axes
        lit = zip(COLOURS[colour], self._tint, strict=True)
        pixels = [self._pose(a * x + c * y + e, b * x + d * y + f) for x, y in parse_points(points)]
        ink = [min(round(value * tint * shade), 255) for value, tint in lit]
        self._draw.polygon(pixels, fill=(*ink, 255))

    def blob(self, points: Points, colour: str, shade: float = 1.0) -> None:
        """Fills the smooth closed curve through the points."""
        self.polygon(_curve(parse_points(points), closed=True), colour, shade)

    def box(self, corner: Point, size: Point, colour: str, *, shade: float = 1.0) -> None:
        """Fills a rectangle, given by its upper left corner, width and height."""
        (x, y), (w, h) = corner, size
        self.polygon(((x, y), (x + w, y), (x + w, y + h), (x, y + h)), colour, shade)

    def oval(self, centre: Point, radii: Point, colour: str, *, shade: float = 1.0) -> None:
        """Fills an ellipse, given by its centre and half axes."""
        (cx, cy), (rx, ry) = centre, radii
        self.polygon([(cx + rx * x, cy + ry * y) for x, y in _CIRCLE], colour, shade)

    def disc(self, centre: Point, radius: float, colour: str, *, shade: float = 1.0) -> None:
        """Fills a circle."""
        self.oval(centre, (radius, radius), colour, shade=shade)

    def stroke(self, points: Points, width: float, colour: str, *, shade=1.0, end=None) -> None:
        """Draws a smooth line, whose width changes to `end` (default: stays the same)."""
        path = parse_points(points)
        path = _curve(path, closed=False) if len(path) > 2 else path
        left, right = [], []
        for i, (x, y) in enumerate(path):
            (ax, ay), (bx, by) = path[max(i - 1, 0)], path[min(i + 1, len(path) - 1)]
            here = width + ((width if end is None else end) - width) * i / (len(path) - 1)
            scale = here / 2 / (math.hypot(bx - ax, by - ay) or 1)
            nx, ny = scale * (ay - by), scale * (bx - ax)
            left.append((x + nx, y + ny))
            right.append((x - nx, y - ny))
        self.polygon(left + right[::-1], colour, shade)
