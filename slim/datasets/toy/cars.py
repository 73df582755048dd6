"""Cars, seen from the side and the front."""

import math
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import ClassVar

from slim.datasets.toy.pen import PAINTS, Pen, Point, divide_circle, parse_points, polar
from slim.datasets.toy.pictures import Subject

# The foot of the rear window, the rear and the front of the roof, the foot of the windscreen.
ROOFS = {
    "saloon": "-.72,-.12 -.48,-.52 .05,-.52 .38,-.12",
    "fastback": "-1,-.12 -.28,-.44 -.05,-.44 .38,-.12",
    "estate": "-1,-.12 -.9,-.52 .08,-.52 .4,-.12",
    "hatch": "-.98,-.12 -.66,-.58 .12,-.58 .48,-.12",
    "pickup": "-.3,-.12 -.26,-.56 .12,-.56 .42,-.12",
    "van": "-1,-.12 -.97,-.68 .48,-.68 .76,-.12",
    "bus": "-1,-.12 -.98,-.8 .86,-.8 .93,-.12",
}
SPOKES = {"three": (3, 0.085), "five": (5, 0.055), "wire": (12, 0.014)}  # number, width
BONNET, BUMPER = (0.96, -0.06), (1.0, 0.36)
WHEELS = (-0.58, 0.57)  # x


@dataclass(frozen=True)
class Car(Subject):
    """A model of cars; each model comes in every paint."""

    varying: ClassVar = {
        "grille": ("bars", "slats", "grid", "kidney", "oval"),
        "lights": ("round", "slit", "square", "twin"),
        "wheels": ("disc", "holes", *SPOKES),
        "spoiler": (False, False, True),
        "stripe": ("", "", "white", "black"),
    }
    on_road: ClassVar = True

    roof: str  # a name in ROOFS
    grille: str = "slats"  # bars, slats, grid, kidney, oval
    lights: str = "round"  # round, slit, square, twin
    wheels: str = "five"  # three, five, wire, disc, holes
    spoiler: bool = False
    stripe: str = ""  # its colour, "" is none

    def draw(self, pen: Pen, rng: Random) -> None:
        """Draws the outline of the side, extruded along the width of the car."""
        paint, yaw = rng.choice(PAINTS), rng.uniform(0.45, 0.8)
        length, width = 1 - 0.3 * yaw, 0.72 * yaw  # as seen: the side is foreshortened
        side = pen.frame((-width / 2, 0), (length, 0))
        across = (width / length, -0.13 * yaw)  # from the near side to the far one

        def extrude(start: Point, stop: Point, colour: str, shade: float) -> None:
            far = [(x + across[0], y + across[1]) for x, y in (stop, start)]
            side.polygon((start, stop, *far), colour, shade)

        roof = parse_points(ROOFS[self.roof])
        profile = [(-1, 0.36), (-1, -0.12), *roof, BONNET, BUMPER]
        for x in WHEELS:
            side.frame(across).oval((x, 0.36), (0.2, 0.22), "black", shade=0.7)
        faces = ((paint, 0.6), (paint, 1.05), ("glass", 0.8), (paint, 1.12), ("glass", 1.15),
                 (paint, 1.08), (paint, 0.8))  # fmt: skip
        for edge, face in zip(pairwise(profile), faces, strict=True):
            extrude(*edge, *face)
        side.polygon(profile, paint, 0.95)
        self._draw_side(side, roof, paint)
        if self.spoiler:
            side.stroke("-.86,-.12 -.92,-.32", 0.06, paint, shade=0.6)
            extrude((-1.1, -0.35), (-0.82, -0.29), paint, 0.7)
        for x in WHEELS:
            _draw_wheel(side.frame((x, 0.37)), self.wheels, rng.uniform(0, math.tau))
        down = (BUMPER[0] - BONNET[0], BUMPER[1] - BONNET[1])
        self._draw_front(side.frame(BONNET, across, down))

    def _draw_side(self, side: Pen, roof: tuple[Point, ...], paint: str) -> None:
        """Draws the stripe, the window, the door and the sill."""
        back, rear, front, screen = roof
        if self.stripe:
            side.polygon("-1,.02 .97,.04 .975,.13 -1,.11", self.stripe)
        window = [(back[0] + 0.1, -0.1), (rear[0] + 0.06, rear[1] + 0.07),
                  (front[0] - 0.02, front[1] + 0.07), (screen[0] - 0.1, -0.1)]  # fmt: skip
        side.polygon(window, "glass", 0.7)
        door = side.frame(((rear[0] + screen[0]) / 2, 0))
        door.stroke(((0, rear[1] + 0.02), (0, -0.1)), 0.06, paint, shade=0.9)
        door.stroke("0,-.1 0,.3", 0.018, paint, shade=0.6)
        door.stroke(".06,0 .18,0", 0.03, "grey", shade=0.6)
        side.box((-1, 0.3), (2, 0.08), "black", shade=1.3)

    def _draw_front(self, pen: Pen) -> None:
        """Draws the grille, lights, bumper and plate.

        In the frame, x goes from the near side to the far side and y from the bonnet down.
        """
        pen.box((0, 0.8), (1, 0.26), "black", shade=1.3)
        pen.box((0.34, 0.8), (0.32, 0.14), "white", shade=0.95)
        if self.grille == "kidney":
            for x in (0.39, 0.61):
                pen.oval((x, 0.42), (0.12, 0.29), "white", shade=0.95)
                pen.oval((x, 0.42), (0.08, 0.22), "black")
        elif self.grille == "oval":
            pen.disc((0.5, 0.42), 0.24, "white", shade=0.95)
            pen.oval((0.5, 0.42), (0.19, 0.16), "black")
        else:
            pen.box((0.28, 0.14), (0.44, 0.56), "black", shade=0.8)
            for i in range(4 if self.grille in ("bars", "grid") else 0):
                pen.box((0.305 + 0.11 * i, 0.14), (0.045, 0.56), "white", shade=0.9)
            for i in range(3 if self.grille in ("slats", "grid") else 0):
                pen.box((0.28, 0.2 + 0.19 * i), (0.44, 0.075), "white", shade=0.9)
        for x in (0.13, 0.87):
            self._draw_lights(pen, x)

    def _draw_lights(self, pen: Pen, x: float) -> None:
        if self.lights == "round":
            pen.oval((x, 0.38), (0.125, 0.23), "grey", shade=0.7)
            pen.oval((x, 0.38), (0.1, 0.18), "cream", shade=1.07)
        elif self.lights == "square":
            pen.box((x - 0.11, 0.2), (0.22, 0.38), "grey", shade=0.7)
            pen.box((x - 0.085, 0.25), (0.17, 0.28), "cream", shade=1.07)
        elif self.lights == "slit":
            pen.box((x - 0.12, 0.16), (0.24, 0.16), "cream", shade=1.07)
        else:
            for y in (0.25, 0.55):
                pen.oval((x, y), (0.085, 0.14), "cream", shade=1.07)


def _draw_wheel(pen: Pen, wheels: str, spin: float) -> None:
    pen.disc((0, 0), 0.25, "black", shade=0.8)
    pen.disc((0, 0), 0.175, "grey", shade=1.25)
    if wheels in SPOKES:
        count, width = SPOKES[wheels]
        pen.disc((0, 0), 0.15, "black", shade=1.1)
        for angle in divide_circle(count, spin):
            pen.stroke(((0, 0), polar(0.165, angle)), width, "grey", shade=1.4)
    elif wheels == "holes":
        for angle in divide_circle(6, spin):
            pen.disc(polar(0.105, angle), 0.036, "black")
    else:
        pen.disc((0, 0), 0.1, "grey", shade=0.95)
        pen.disc((0, 0), 0.07, "grey", shade=1.45)
