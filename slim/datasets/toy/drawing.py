"""Birds, flowers, cars and things, drawn with Pillow from the traits that tell them apart.

A species is a small dataclass of traits, and all individuals of a kind are drawn by one function,
whichever domain they live in. What is not a trait is chance: pose, light, scenery, and whatever
happens to stand in front. Shapes are given in units of the object, about -1 to 1 each way, x
towards its head or bonnet and y downwards; points are pairs, or text such as "0,-.06 .15,-.02".
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float]
Points = str | Sequence[Point]

OVERSAMPLING = 3  # objects are drawn this much larger and then reduced, for smooth edges

COLOURS = {
    "black": (38, 36, 40),
    "white": (246, 244, 238),
    "cream": (238, 224, 190),
    "grey": (150, 152, 156),
    "slate": (88, 106, 134),
    "olive": (126, 130, 66),
    "russet": (164, 92, 50),
    "brown": (106, 76, 54),
    "tan": (202, 168, 120),
    "yellow": (244, 206, 56),
    "orange": (236, 138, 44),
    "red": (204, 46, 44),
    "pink": (238, 150, 182),
    "violet": (140, 92, 190),
    "blue": (62, 112, 198),
    "teal": (48, 142, 146),
    "green": (84, 146, 66),
    "leaf": (70, 118, 54),
    "glass": (70, 92, 112),
}
PAINTS = ("red", "blue", "slate", "white", "black", "teal", "yellow", "grey", "olive", "orange")


@cache
def _parsed(text: str) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in (word.split(",") for word in text.split()))


def _points(points: Points) -> Sequence[Point]:
    return _parsed(points) if isinstance(points, str) else points


def _around(count: int, start: float = 0.0) -> Iterable[float]:
    """`count` angles that divide the circle."""
    return (start + i * math.tau / count for i in range(count))


def _polar(radius: float, angle: float) -> Point:
    return radius * math.cos(angle), radius * math.sin(angle)


def _curve(points: Sequence[Point], closed: bool) -> list[Point]:
    """A Catmull-Rom curve through the points."""
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
_CIRCLE = [_polar(1, angle) for angle in _around(28)]


class Pen:
    """Fills shapes, given in a frame of their own, on an image.

    Args:
        draw: Draws on the image.
        pose: From a point in the object's units to a pixel.
        tint: What red, green and blue are multiplied by.
        axes: The frame: where x, y and the origin go, two numbers each.
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
        """A pen whose origin and unit vectors are these, in this pen's frame."""
        a, b, c, d, e, f = self._axes
        axes = [value for x, y in (right, down) for value in (a * x + c * y, b * x + d * y)]
        x, y = origin
        axes += (a * x + c * y + e, b * x + d * y + f)
        return Pen(self._draw, self._pose, self._tint, axes)

    def turned(self, origin: Point, angle: float) -> "Pen":
        """A pen whose frame is turned about an origin; a positive angle lowers what lies ahead."""
        return self.frame(origin, _polar(1, angle), _polar(1, angle + math.pi / 2))

    def polygon(self, points: Points, colour: str, shade: float = 1.0) -> None:
        """Fills a polygon with a named colour, made darker (shade < 1) or lighter."""
        a, b, c, d, e, f = self._axes
        lit = zip(COLOURS[colour], self._tint, strict=True)
        pixels = [self._pose(a * x + c * y + e, b * x + d * y + f) for x, y in _points(points)]
        ink = [min(round(value * tint * shade), 255) for value, tint in lit]
        self._draw.polygon(pixels, fill=(*ink, 255))

    def blob(self, points: Points, colour: str, shade: float = 1.0) -> None:
        """Fills the smooth closed curve through the points."""
        self.polygon(_curve(_points(points), closed=True), colour, shade)

    def box(self, x: float, y: float, w: float, h: float, colour: str, shade: float = 1.0) -> None:
        """Fills a rectangle, given by its corner and size."""
        self.polygon(((x, y), (x + w, y), (x + w, y + h), (x, y + h)), colour, shade)

    def oval(self, centre: Point, rx: float, ry: float, colour: str, shade: float = 1.0) -> None:
        """Fills an ellipse, given by its centre and half axes."""
        self.polygon([(centre[0] + rx * x, centre[1] + ry * y) for x, y in _CIRCLE], colour, shade)

    def stroke(self, points: Points, width: float, colour: str, shade=1.0, end=None) -> None:
        """Draws a smooth line `width` wide where it starts, `end` (or still) where it ends."""
        path = _points(points)
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


@dataclass(frozen=True)
class Bird:
    """What tells one bird from another; colours are names in `COLOURS`, "" is none."""

    body: str
    belly: str
    bill: str = "thin"  # a name in BILLS
    crest: str = ""  # a name in CRESTS
    wing_bars: int = 0
    tail: str = "square"  # a name in TAILS
    breast: str = ""  # a bib's colour, or "streaked"
    cap: str = ""
    eye: str = ""  # ring, stripe
    legs: str = "brown"
    bill_colour: str = "black"


# The bill's outline, from the forehead round its tip to the chin.
BILLS = {
    "thin": "0,-.06 .15,-.02 .27,.02 .13,.05 0,.06",
    "long": "0,-.06 .3,-.03 .62,.02 .3,.04 0,.06",
    "sickle": "0,-.08 .24,-.06 .44,.06 .54,.26 .36,.1 0,.05",
    "cone": "0,-.15 .13,-.1 .26,.03 .12,.1 0,.13",
    "hooked": "0,-.11 .2,-.1 .31,0 .28,.14 .2,.05 0,.09",
    "flat": "0,-.07 .2,0 .42,-.02 .44,.07 .2,.1 0,.09",
}
# A feather of the crest each: how far it leans back from upright (radians), its length.
CRESTS = {
    "": "",
    "peak": ".5,.22 .75,.34 1,.26",
    "fan": "-.35,.3 -.05,.34 .25,.34 .55,.32 .85,.26",
    "plume": "1.05,.62 1.25,.5",
}
# How long the tail is, how far its feathers spread, how many they are, how far it is raised.
TAILS = {
    "square": (0.5, 0.16, 4, 0.0),
    "long": (0.95, 0.08, 3, 0.0),
    "forked": (0.66, 0.3, 2, 0.0),
    "cocked": (0.48, 0.2, 4, 0.9),
}


def draw_bird(pen: Pen, bird: Bird, rng: Random) -> None:
    """Draws a perched bird in profile."""
    at = (0.43 + rng.uniform(-0.06, 0.06), -0.4 + rng.uniform(-0.08, 0.06))
    head = pen.turned(at, rng.uniform(-0.25, 0.25))
    wing = pen.turned((0.22, -0.06), rng.uniform(-0.12, 0.14))

    _draw_perch_and_legs(pen, bird.legs, 0.42 + rng.uniform(0.16, 0.24), rng)
    length, spread, feathers, raised = TAILS[bird.tail]
    droop = raised + rng.uniform(-0.27, 0.03)
    for i in range(feathers):
        feather = pen.turned((-0.5, 0.1), droop + spread * (2 * i / (feathers - 1) - 1))
        feather.stroke(((0.2, 0), (-length, 0)), 0.16, bird.body, 0.62 + 0.06 * (i % 2), end=0.09)
    for lean, length in _points(CRESTS[bird.crest]):
        feather = head.turned((-0.04 - 0.1 * math.sin(lean), -0.12), -lean)
        feather.stroke(((0, 0), (0, -length)), 0.15, bird.cap or bird.body, 0.85, end=0.015)

    pen.blob("-.6,.12 -.42,-.08 -.1,-.24 .3,-.3 .5,-.1 .53,.1 .42,.3 .12,.44 -.25,.36", bird.body)
    pen.stroke(((0.16, 0.0), at), 0.56, bird.body, end=0.42)
    head.blob("-.24,.04 -.16,-.19 .05,-.25 .23,-.1 .2,.13 0,.24", bird.body)
    pen.blob(".44,-.1 .52,.1 .41,.29 .11,.42 -.26,.34 -.45,.2 0,.2 .28,.05", bird.belly)
    if bird.breast == "streaked":
        for i in range(9):
            x, y = 0.46 - 0.085 * (i % 5) - 0.04 * (i // 5), 0.05 * (i % 5) + 0.11 * (i // 5) - 0.02
            pen.stroke(((x, y), (x - 0.03, y + 0.1)), 0.05, "brown", 0.7, end=0.02)
    elif bird.breast:
        head.blob(".2,.07 .02,.16 -.14,.38 -.06,.56 .1,.52 .16,.3", bird.breast)

    wing.blob(".06,0 -.15,-.13 -.5,-.06 -.86,.14 -.5,.2 -.12,.24", bird.body, 0.74)
    for i in range(4):
        start, stop = (0.04 * i - 0.3, 0.05 * i), (0.09 * i - 0.78, 0.11 + 0.03 * i)
        wing.stroke((start, stop), 0.025, bird.body, 0.5)
    for x in (-0.1, -0.26)[: bird.wing_bars]:
        wing.frame((x, 0)).stroke(".02,-.1 -.03,.06 .02,.21", 0.075, "white")

    if bird.cap:
        head.blob("-.25,.02 -.16,-.22 .06,-.26 .23,-.1 .02,-.09", bird.cap)
    if bird.eye == "stripe":
        head.stroke(".24,-.02 .08,-.04 -.24,.02", 0.1, "black")
    if bird.eye == "ring":
        head.oval((0.08, -0.05), 0.1, 0.1, "white")
    head.oval((0.08, -0.05), 0.055, 0.055, "black", 0.6)
    head.oval((0.1, -0.07), 0.018, 0.018, "white")
    beak = head.frame((0.19, 0))
    beak.blob(BILLS[bird.bill], bird.bill_colour)
    beak.stroke("0,.01 .17,.02", 0.015, bird.bill_colour, 0.5)


def _draw_perch_and_legs(pen: Pen, legs: str, feet: float, rng: Random) -> None:
    ground = pen.frame((0, feet))
    perch = rng.choice(("branch", "branch", "stone", "nothing"))
    if perch == "branch":
        sag = rng.uniform(-0.15, 0.15)
        path = ((-2, 0.06 + sag), (-0.6, 0.03), (0.05, 0.06), (2, -sag))
        ground.stroke(path, rng.uniform(0.1, 0.18), "brown", rng.uniform(0.6, 1.1), end=0.06)
    elif perch == "stone":
        outline = "-.9,.5 -.55,.04 .1,0 .6,.06 1,.5 0,.8"
        ground.blob(outline, "grey", rng.uniform(0.6, 1.0))
    for x in (-0.02, 0.14):
        pen.stroke(((x, 0.36), (x - 0.03, 0.46), (x - 0.02, feet)), 0.055, legs)
        for toe in (-0.08, 0.06, 0.12):
            ground.stroke(((x - 0.02, 0), (x - 0.02 + toe, 0.05)), 0.04, legs)


@dataclass(frozen=True)
class Flower:
    """What tells one flower from another; colours are names in `COLOURS`."""

    colour: str
    petals: int
    shape: str  # a name in PETALS
    centre: str = "button"  # button, disc, stamens, trumpet
    leaf: str = "oval"  # a name in LEAVES
    eye: str = ""  # colour of a ring around the centre
    centre_colour: str = "yellow"


# One edge of a petal, from its root: how far out, how wide (1: as wide as petals stand apart).
PETALS = {
    "round": ".1,.25 .5,.85 .8,1 .96,.6 1,0",
    "pointed": ".1,.3 .4,.85 .6,.85 .85,.35 1.08,0",
    "notched": ".1,.25 .5,.75 .85,1 1.02,.55 .84,0",
    "strap": ".1,.4 .4,.5 .8,.55 .98,.4 1.02,0",
    "spoon": ".1,.2 .5,.25 .72,.8 .92,.8 1,0",
    "toothed": ".1,.25 .85,1 1.02,.8 .86,.5 1.04,.3 .88,0",
}
# One edge of a leaf, from its stalk.
LEAVES = {
    "blade": "0,.03 .5,.08 1,.05 1.3,0",
    "oval": "0,.02 .25,.2 .55,.2 .9,0",
    "heart": "-.1,.14 .05,.3 .35,.28 .8,0",
    "lobed": "0,.03 .15,.26 .3,.1 .5,.3 .62,.1 .8,.2 .95,0",
    "fern": "0,.03 .1,.3 .14,.05 .26,.28 .3,.05 .42,.24 .46,.04 .58,.18 .62,.03 .72,.12 .9,0",
}
ANGULAR = ("notched", "toothed", "lobed", "fern")  # their corners, a curve would smooth away


def _fill_halves(pen: Pen, shape: str, edge: Sequence[Point], colour: str, shade: float) -> None:
    """Fills a petal or a leaf, given by the one edge that the other mirrors."""
    outline = [*edge, *((x, -y) for x, y in reversed(edge[:-1]))]
    (pen.polygon if shape in ANGULAR else pen.blob)(outline, colour, shade)


def draw_flower(pen: Pen, flower: Flower, rng: Random) -> None:
    """Draws a flower on its stem with two or three leaves, and perhaps a second bloom."""
    top, root = (rng.uniform(-0.1, 0.1), -0.25), (rng.uniform(-0.5, 0.5), 1.6)
    middle = (0.6 * top[0] + 0.4 * root[0] + rng.uniform(-0.12, 0.12), 0.5)
    pen.stroke((root, middle, top), 0.07, "leaf", 0.85)
    for i in range(rng.choice((2, 3))):
        angle = (-0.45 if i % 2 else math.pi + 0.45) + rng.uniform(-0.3, 0.3)
        leaf = pen.turned((middle[0] + 0.05 * (i - 1), 0.62 - 0.16 * i), angle)
        shade = rng.uniform(0.85, 1.2)
        _fill_halves(leaf, flower.leaf, _points(LEAVES[flower.leaf]), "leaf", shade)
        leaf.stroke("0,0 .82,0", 0.03, "leaf", shade * 0.75, end=0.01)
    if rng.random() < 0.35:
        side = rng.choice((-0.75, 0.75))
        bud = (side + rng.uniform(-0.1, 0.1), rng.uniform(0.0, 0.35))
        pen.stroke((middle, (0.7 * side, 0.55), bud), 0.05, "leaf", 0.8)
        _draw_bloom(pen, flower, bud, rng.uniform(0.3, 0.4), rng)
    _draw_bloom(pen, flower, top, rng.uniform(0.6, 0.7), rng)


def _draw_bloom(pen: Pen, flower: Flower, centre: Point, radius: float, rng: Random) -> None:
    tilted = pen.turned(centre, rng.uniform(-0.6, 0.6))
    bloom = tilted.frame((0, 0), (radius, 0), (0, radius * rng.uniform(0.62, 1.0)))
    spin = rng.uniform(0, math.tau)
    half = math.tan(math.pi / max(flower.petals, 4)) * 0.62  # wide enough to overlap a little
    edge = [(x, y * half) for x, y in _points(PETALS[flower.shape])]
    rows = 2 if flower.petals > 8 else 1  # many petals stand in two rows
    angles = list(_around(flower.petals, spin))
    for row in range(rows):
        for i, angle in enumerate(angles[row::rows]):
            petal = bloom.turned((0, 0), angle + rng.uniform(-0.6, 0.6) / flower.petals)
            petal = petal.frame((0, 0), (rng.uniform(0.93, 1.05), 0))
            shade = 0.8 + 0.12 * (i % 2) + 0.1 * row + rng.uniform(-0.03, 0.03)
            _fill_halves(petal, flower.shape, edge, flower.colour, shade)
            petal.stroke(".1,0 .7,0", 0.03, flower.colour, shade * 0.78, end=0.01)
    if flower.eye:
        bloom.oval((0, 0), 0.42, 0.42, flower.eye, 0.95)
    if flower.centre == "disc":
        bloom.oval((0, 0), 0.36, 0.36, "brown", 0.8)
        for i in range(26):  # seeds along a spiral, at the golden angle
            bloom.oval(_polar(0.065 * math.sqrt(i), 2.4 * i), 0.022, 0.022, "orange", 0.8)
    elif flower.centre == "stamens":
        bloom.oval((0, 0), 0.12, 0.12, "green", 0.9)
        for angle in _around(10, spin):
            bloom.stroke((_polar(0.1, angle), _polar(0.36, angle)), 0.03, flower.centre_colour, 0.9)
            bloom.oval(_polar(0.38, angle), 0.05, 0.05, flower.centre_colour, 0.7)
    elif flower.centre == "trumpet":
        frill = [_polar(0.44 - 0.07 * (i % 2), angle) for i, angle in enumerate(_around(24))]
        bloom.polygon(frill, flower.centre_colour)
        bloom.oval((0, 0), 0.28, 0.28, flower.centre_colour, 0.66)
    else:
        bloom.oval((0, 0), 0.2, 0.2, flower.centre_colour, 0.82)
        bloom.oval((0, 0), 0.13, 0.13, flower.centre_colour)


@dataclass(frozen=True)
class Car:
    """What tells one car from another; every model comes in every paint."""

    roof: str  # a name in ROOFS
    grille: str = "slats"  # bars, slats, grid, kidney, oval
    lights: str = "round"  # round, slit, square, twin
    wheels: str = "five"  # three, five, wire, disc, holes
    spoiler: bool = False
    stripe: str = ""  # its colour


# Above the belt: foot of the rear window, rear and front of the roof, foot of the windscreen.
ROOFS = {
    "saloon": "-.72,-.12 -.48,-.52 .05,-.52 .38,-.12",
    "fastback": "-1,-.12 -.28,-.44 -.05,-.44 .38,-.12",
    "estate": "-1,-.12 -.9,-.52 .08,-.52 .4,-.12",
    "hatch": "-.98,-.12 -.66,-.58 .12,-.58 .48,-.12",
    "pickup": "-.3,-.12 -.26,-.56 .12,-.56 .42,-.12",
    "van": "-1,-.12 -.97,-.68 .48,-.68 .76,-.12",
    "bus": "-1,-.12 -.98,-.8 .86,-.8 .93,-.12",
}
SPOKES = {"three": (3, 0.085), "five": (5, 0.055), "wire": (12, 0.014)}  # how many, how thick


def draw_car(pen: Pen, car: Car, rng: Random) -> None:
    """Draws a car from its near side and front: the side's outline, drawn out along its width."""
    paint, yaw = rng.choice(PAINTS), rng.uniform(0.45, 0.8)
    short, width = 1 - 0.3 * yaw, 0.72 * yaw  # the more it turns to us, the shorter its side
    side = pen.frame((-width / 2, 0), (short, 0))
    across = (width / short, -0.13 * yaw)  # from the near side to the far one

    def drawn_out(start: Point, stop: Point, colour: str, shade: float) -> None:
        far = [(x + across[0], y + across[1]) for x, y in (stop, start)]
        side.polygon((start, stop, *far), colour, shade)

    back, rear, front, screen = roof = _points(ROOFS[car.roof])
    bonnet, bumper = (0.96, -0.06), (1.0, 0.36)
    profile = [(-1, 0.36), (-1, -0.12), *roof, bonnet, bumper]
    for x in (-0.58, 0.57):
        side.frame(across).oval((x, 0.36), 0.2, 0.22, "black", 0.7)
    faces = ((paint, 0.6), (paint, 1.05), ("glass", 0.8), (paint, 1.12), ("glass", 1.15),
             (paint, 1.08), (paint, 0.8))  # fmt: skip
    for (start, stop), (colour, shade) in zip(pairwise(profile), faces, strict=True):
        drawn_out(start, stop, colour, shade)
    side.polygon(profile, paint, 0.95)

    if car.stripe:
        side.polygon("-1,.02 .97,.04 .975,.13 -1,.11", car.stripe)
    window = [(back[0] + 0.1, -0.1), (rear[0] + 0.06, rear[1] + 0.07),
              (front[0] - 0.02, front[1] + 0.07), (screen[0] - 0.1, -0.1)]  # fmt: skip
    side.polygon(window, "glass", 0.7)
    door = side.frame(((rear[0] + screen[0]) / 2, 0))
    door.stroke(((0, rear[1] + 0.02), (0, -0.1)), 0.06, paint, 0.9)
    door.stroke("0,-.1 0,.3", 0.018, paint, 0.6)
    door.stroke(".06,0 .18,0", 0.03, "grey", 0.6)
    side.box(-1, 0.3, 2, 0.08, "black", 1.3)
    if car.spoiler:
        side.stroke("-.86,-.12 -.92,-.32", 0.06, paint, 0.6)
        drawn_out((-1.1, -0.35), (-0.82, -0.29), paint, 0.7)
    for x in (-0.58, 0.57):
        _draw_wheel(side.frame((x, 0.37)), car.wheels, rng.uniform(0, math.tau))
    down = (bumper[0] - bonnet[0], bumper[1] - bonnet[1])
    _draw_front(side.frame(bonnet, across, down), car)


def _draw_wheel(pen: Pen, wheels: str, spin: float) -> None:
    pen.oval((0, 0), 0.25, 0.25, "black", 0.8)
    pen.oval((0, 0), 0.175, 0.175, "grey", 1.25)
    if wheels in SPOKES:
        count, thick = SPOKES[wheels]
        pen.oval((0, 0), 0.15, 0.15, "black", 1.1)
        for angle in _around(count, spin):
            pen.stroke(((0, 0), _polar(0.165, angle)), thick, "grey", 1.4)
    elif wheels == "holes":
        for angle in _around(6, spin):
            pen.oval(_polar(0.105, angle), 0.036, 0.036, "black")
    else:
        pen.oval((0, 0), 0.1, 0.1, "grey", 0.95)
        pen.oval((0, 0), 0.07, 0.07, "grey", 1.45)


def _draw_front(pen: Pen, car: Car) -> None:
    """Grille, lights, bumper and plate; x from the near to the far side, y from the bonnet down."""
    pen.box(0, 0.8, 1, 0.26, "black", 1.3)
    pen.box(0.34, 0.8, 0.32, 0.14, "white", 0.95)
    if car.grille == "kidney":
        for x in (0.39, 0.61):
            pen.oval((x, 0.42), 0.12, 0.29, "white", 0.95)
            pen.oval((x, 0.42), 0.08, 0.22, "black")
    elif car.grille == "oval":
        pen.oval((0.5, 0.42), 0.24, 0.24, "white", 0.95)
        pen.oval((0.5, 0.42), 0.19, 0.16, "black")
    else:
        pen.box(0.28, 0.14, 0.44, 0.56, "black", 0.8)
        for i in range(4 if car.grille in ("bars", "grid") else 0):
            pen.box(0.305 + 0.11 * i, 0.14, 0.045, 0.56, "white", 0.9)
        for i in range(3 if car.grille in ("slats", "grid") else 0):
            pen.box(0.28, 0.2 + 0.19 * i, 0.44, 0.075, "white", 0.9)
    for x in (0.13, 0.87):
        if car.lights == "round":
            pen.oval((x, 0.38), 0.125, 0.23, "grey", 0.7)
            pen.oval((x, 0.38), 0.1, 0.18, "cream", 1.07)
        elif car.lights == "square":
            pen.box(x - 0.11, 0.2, 0.22, 0.38, "grey", 0.7)
            pen.box(x - 0.085, 0.25, 0.17, 0.28, "cream", 1.07)
        elif car.lights == "slit":
            pen.box(x - 0.12, 0.16, 0.24, 0.16, "cream", 1.07)
        else:
            for y in (0.25, 0.55):
                pen.oval((x, y), 0.085, 0.14, "cream", 1.07)


def draw_thing(pen: Pen, recipe: str, rng: Random) -> None:
    """Draws a thing from its recipe, a little out of shape.

    A recipe is shapes in drawing order, with `;` between them: `poly`, `blob` or `line`, a colour
    and points (a line's width comes last), or `oval`, a colour, its centre and its half axes.
    Colours `a` and `b` are any two, chosen for each image.
    """
    any_two = dict(zip("ab", rng.sample(PAINTS, 2), strict=True))
    lean = rng.uniform(-0.1, 0.1)
    pen = pen.frame((0, 0), (rng.uniform(0.82, 1.12), 0), (lean, rng.uniform(0.82, 1.12)))
    for shape in recipe.split(";"):
        kind, colour, points = shape.split(maxsplit=2)
        colour = any_two.get(colour, colour)
        if kind == "oval":
            centre, half_axes = _points(points)
            pen.oval(centre, *half_axes, colour)
        elif kind == "line":
            points, width = points.rsplit(maxsplit=1)
            pen.stroke(points, float(width), colour)
        else:
            {"poly": pen.polygon, "blob": pen.blob}[kind](points, colour)


Subject = Bird | Flower | Car | str
PAINTERS = {Bird: draw_bird, Flower: draw_flower, Car: draw_car, str: draw_thing}

# A coarse class is many species: these of its traits differ from image to image.
LOOSE = {
    Bird: {
        "body": ("slate", "olive", "russet", "brown", "red", "blue", "yellow", "white", "black"),
        "belly": ("cream", "white", "tan", "grey", "yellow"),
        "crest": ("", "", *CRESTS),
        "wing_bars": (0, 0, 1, 2),
        "breast": ("", "", "red", "black", "streaked"),
        "cap": ("", "", "black", "red", "white"),
        "eye": ("", "ring", "stripe"),
        "legs": ("brown", "orange", "black"),
    },
    Flower: {
        "colour": ("red", "yellow", "pink", "violet", "white", "orange", "blue"),
        "centre": ("button", "disc", "stamens"),
        "leaf": tuple(LEAVES),
    },
    Car: {
        "grille": ("bars", "slats", "grid", "kidney", "oval"),
        "lights": ("round", "slit", "square", "twin"),
        "wheels": ("disc", "holes", *SPOKES),
        "spoiler": (False, False, True),
        "stripe": ("", "", "white", "black"),
    },
    str: {},
}


def loosened(subject: Subject, rng: Random) -> Subject:
    """The same coarse thing with other fine traits."""
    traits = {trait: rng.choice(values) for trait, values in LOOSE[type(subject)].items()}
    return replace(subject, **traits) if traits else subject


# Colours at the top and at the bottom, colours of the marks, how many they are, and their half
# width and height in parts of the picture.
SCENES = (
    # clouds, overcast sky, meadow, foliage, sunlit leaves, water, tree trunks, sand
    ((120, 170, 225), (215, 230, 240), ((245, 245, 248), (200, 215, 235)), 9, 0.25, 0.06),
    ((186, 190, 196), (226, 226, 222), ((205, 206, 210), (240, 240, 238)), 9, 0.3, 0.08),
    ((168, 196, 140), (92, 132, 60), ((80, 120, 54), (150, 176, 92)), 60, 0.015, 0.2),
    ((88, 120, 70), (46, 74, 40), ((60, 96, 44), (120, 152, 76), (34, 56, 32)), 55, 0.1, 0.07),
    ((196, 208, 170), (132, 158, 96), ((226, 226, 180), (104, 136, 72)), 30, 0.09, 0.09),
    ((150, 180, 200), (60, 104, 130), ((160, 190, 206), (66, 106, 132)), 40, 0.22, 0.015),
    ((206, 206, 200), (160, 150, 132), ((112, 92, 72), (84, 70, 58)), 16, 0.02, 0.5),
    ((210, 190, 156), (160, 132, 96), ((184, 160, 126), (128, 104, 78)), 40, 0.05, 0.03),
)


def _scene(rng: Random, size: tuple[int, int], road: bool) -> Image.Image:
    """A background out of focus: drawn at half the size, blurred and enlarged."""
    top, bottom, marks, count, rx, ry = rng.choice(SCENES)
    w, h = size[0] // 2, size[1] // 2
    fade = Image.linear_gradient("L").resize((w, h))
    scene = Image.composite(Image.new("RGB", (w, h), bottom), Image.new("RGB", (w, h), top), fade)
    draw = ImageDraw.Draw(scene)
    for _ in range(count):
        x, y, grow = rng.random() * w, rng.random() * h, rng.uniform(0.5, 1.5)
        dx, dy = rx * grow * w, ry * grow * h
        draw.ellipse((x - dx, y - dy, x + dx, y + dy), fill=rng.choice(marks))
    if road:
        level, grey = rng.uniform(0.5, 0.68) * h, rng.randrange(90, 165)
        draw.rectangle((0, level, w, h), fill=(grey, grey, grey + 4))
        draw.line((0, level, w, level), fill=(grey + 50,) * 3)
    blur = ImageFilter.GaussianBlur(rng.uniform(0.01, 0.03) * w)
    return scene.filter(blur).resize(size, Image.Resampling.BICUBIC)


def _occlude(picture: Image.Image, rng: Random) -> None:
    """Puts a leaf, a twig or blades of grass, mostly out of focus, over a part of the picture."""
    w, h = picture.size
    layer = Image.new("RGBA", picture.size)
    pen = Pen(ImageDraw.Draw(layer), lambda x, y: (x * w, y * h), (1, 1, 1))
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.15, 0.9)
    kind = rng.choice(("leaf", "twig", "grass"))
    colour = "brown" if kind == "twig" else rng.choice(("leaf", "green", "olive"))
    if kind == "leaf":
        size = rng.uniform(0.14, 0.24)
        leaf = pen.frame((x, y), (size, 0), (0, size)).turned((0, 0), rng.uniform(0, math.tau))
        leaf.blob("-1,0 -.4,-.42 .3,-.42 1,0 .3,.42 -.4,.42", colour)
    elif kind == "twig":
        rise = rng.uniform(-0.8, 0.8)
        pen.stroke(((0, y - rise * x), (1, y + rise * (1 - x))), 0.035, colour, end=0.02)
    else:
        for _ in range(rng.randrange(4, 9)):
            foot, lean = x + rng.uniform(-0.25, 0.25), rng.uniform(-0.12, 0.12)
            tip = (foot + lean, rng.uniform(0.45, 0.8))
            pen.stroke(((foot, 1.0), tip), 0.04, colour, end=0.005)
    mask = layer.getchannel("A").filter(ImageFilter.GaussianBlur(rng.uniform(0.006, 0.016) * h))
    shade = rng.uniform(0.5, 1.1)
    picture.paste(tuple(round(value * shade) for value in COLOURS[colour]), (0, 0), mask)


def _moved(mask: Image.Image, dx: int, dy: int, beyond: int) -> Image.Image:
    """A mask moved by whole pixels; what comes into it from `beyond` its edges has that value."""
    moved = Image.new("L", mask.size, beyond)
    moved.paste(mask, (dx, dy))
    return moved


def _dimmed(picture: Image.Image, light: Image.Image, least: float) -> Image.Image:
    """The picture multiplied by a light that goes from `least` (where it is 0) to 1 (255)."""
    light = light.point([round(255 * least + (1 - least) * i) for i in range(256)])
    return ImageChops.multiply(picture, Image.merge("RGB", (light,) * 3))


def draw_picture(subject: Subject, rng: Random, image_size: int) -> Image.Image:
    """Draws a subject in a scene of its own.

    Args:
        subject: What to draw.
        rng: Where chance comes from: in the same state it gives the same picture.
        image_size: The shorter side, in pixels; the longer one is up to a quarter more.

    Returns:
        An RGB image.
    """
    car = isinstance(subject, Car)
    size = [image_size, round(image_size * rng.choice((1, 1, 1.125, 1.25)))]
    w, h = size[::-1] if car or rng.random() < 0.7 else size

    # The pose, in pixels of the larger layer on which the subject is drawn.
    unit = OVERSAMPLING * image_size * (rng.uniform(0.42, 0.52) if car else rng.uniform(0.37, 0.5))
    left = OVERSAMPLING * w * rng.uniform(0.41, 0.59)
    top = OVERSAMPLING * h * rng.uniform(0.43, 0.57)
    angle, bend = rng.gauss(0, 0.04 if car else 0.16), 0 if car else rng.uniform(-0.14, 0.14)
    cos, sin = _polar(unit, angle)
    flip = rng.choice((-1, 1))

    def pose(x: float, y: float) -> Point:
        x, y = x * flip, y + bend * x * x
        return left + x * cos - y * sin, top + x * sin + y * cos

    layer = Image.new("RGBA", (w * OVERSAMPLING, h * OVERSAMPLING))
    tint = [rng.uniform(0.9, 1.08) for _ in range(3)]
    PAINTERS[type(subject)](Pen(ImageDraw.Draw(layer), pose, tint), subject, rng)
    layer = layer.reduce(OVERSAMPLING)

    # Light from above and one side: what turns from it is darker, and a soft shadow falls behind.
    alpha = layer.getchannel("A")
    soft = alpha.filter(ImageFilter.GaussianBlur(image_size / 26))
    slant, drop = rng.choice((-1, 1)) * image_size // 26, image_size // 20
    lit = _dimmed(layer.convert("RGB"), _moved(soft, slant, -drop, 255), rng.uniform(0.5, 0.75))
    picture = _scene(rng, (w, h), road=car)
    picture.paste(
        (24, 28, 30), (0, 0), _moved(soft, -slant, drop, 0).point(lambda value: value / 3)
    )
    picture.paste(lit, (0, 0), alpha)
    if rng.random() < 0.5:
        _occlude(picture, rng)

    # The camera: exposure, white balance, uneven light, a little defocus and grain.
    gain = rng.uniform(0.85, 1.3)
    r, g, b = (gain * rng.uniform(0.95, 1.05) for _ in range(3))
    picture = picture.convert("RGB", (r, 0, 0, 0, 0, g, 0, 0, 0, 0, b, 0))
    across = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((w, h))
    picture = _dimmed(picture, across, rng.uniform(0.6, 1.0))
    if rng.random() < 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(image_size * rng.uniform(0.003, 0.007)))
    grain = Image.frombytes("L", (w, h), rng.randbytes(w * h))
    return Image.blend(picture, Image.merge("RGB", (grain,) * 3), rng.uniform(0.0, 0.04))
