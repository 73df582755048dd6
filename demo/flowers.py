"""Flowers on their stems."""

import math
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import numpy as np

from demo.pen import Pen, divide_circle, parse_points, polar
from demo.pictures import Subject

# One edge of a petal, from its base: distance from the centre, width (1: the petals' spacing).
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
ANGULAR = ("notched", "toothed", "lobed", "fern")  # shapes whose corners a curve would smooth


@dataclass(frozen=True)
class Flower(Subject):
    """A species of flowers; colours are names in `COLOURS`, "" is none."""

    varying: ClassVar = {
        "colour": ("red", "yellow", "pink", "violet", "white", "orange", "blue"),
        "centre": ("button", "disc", "stamens"),
        "leaf": tuple(LEAVES),
    }

    colour: str
    petals: int
    shape: str  # a name in PETALS
    centre: str = "button"  # button, disc, stamens, trumpet
    leaf: str = "oval"  # a name in LEAVES
    eye: str = ""  # the colour of a ring around the centre
    centre_colour: str = "yellow"

    def draw(self, pen: Pen, rng: Random) -> None:
        top, root = (rng.uniform(-0.1, 0.1), -0.25), (rng.uniform(-0.5, 0.5), 1.6)
        middle = (0.6 * top[0] + 0.4 * root[0] + rng.uniform(-0.12, 0.12), 0.5)
        pen.line((root, middle, top), "moss*.85", 0.07)
        for i in range(rng.choice((2, 3))):
            angle = (-0.45 if i % 2 else math.pi + 0.45) + rng.uniform(-0.3, 0.3)
            leaf = pen.turned((middle[0] + 0.05 * (i - 1), 0.62 - 0.16 * i), angle)
            fill = leaf.poly if self.leaf in ANGULAR else leaf.blob
            shade = rng.uniform(0.85, 1.2)
            fill(_mirror(LEAVES[self.leaf]), f"moss*{shade}")
            leaf.line("0,0 .82,0", f"moss*{shade * 0.75}", 0.03, 0.01)
        if rng.random() < 0.35:
            side = rng.choice((-0.75, 0.75))
            bud = (side + rng.uniform(-0.1, 0.1), rng.uniform(0.0, 0.35))
            pen.line((middle, (0.7 * side, 0.55), bud), "moss*.8", 0.05)
            self._draw_bloom(pen.frame(bud), rng.uniform(0.3, 0.4), rng)
        self._draw_bloom(pen.frame(top), rng.uniform(0.6, 0.7), rng)

    def _draw_bloom(self, pen: Pen, radius: float, rng: Random) -> None:
        tilt = rng.uniform(-0.6, 0.6)
        bloom = pen.turned((0, 0), tilt, (radius, radius * rng.uniform(0.62, 1.0)))
        spin = rng.uniform(0, math.tau)
        half = math.tan(math.pi / max(self.petals, 4)) * 0.62  # wide enough to overlap a little
        outline = _mirror(PETALS[self.shape], half)
        rows = 2 if self.petals > 8 else 1
        for row in range(rows):
            for i, angle in enumerate(divide_circle(self.petals, spin)[row::rows]):
                angle += rng.uniform(-0.6, 0.6) / self.petals
                petal = bloom.turned((0, 0), angle, (rng.uniform(0.93, 1.05), 1))
                fill = petal.poly if self.shape in ANGULAR else petal.blob
                shade = 0.8 + 0.12 * (i % 2) + 0.1 * row + rng.uniform(-0.03, 0.03)
                fill(outline, f"colour*{shade}")
                petal.line(".1,0 .7,0", f"colour*{shade * 0.78}", 0.03, 0.01)
        bloom.oval("0,0 .42,.42", "eye*.95")
        self._draw_centre(bloom, spin)

    def _draw_centre(self, bloom: Pen, spin: float) -> None:
        if self.centre == "disc":
            bloom.oval("0,0 .36,.36", "brown*.8")
            for i in range(26):  # seeds on a spiral, separated by the golden angle
                seed = polar(0.065 * math.sqrt(i), 2.4 * i)
                bloom.oval((seed, (0.022, 0.022)), "orange*.8")
        elif self.centre == "stamens":
            bloom.oval("0,0 .12,.12", "green*.9")
            for angle in divide_circle(10, spin):
                bloom.line(polar((0.1, 0.36), (angle, angle)), "centre_colour*.9", 0.03)
                bloom.oval((polar(0.38, angle), (0.05, 0.05)), "centre_colour*.7")
        elif self.centre == "trumpet":
            bloom.poly(polar((0.44, 0.37) * 12, divide_circle(24)), "centre_colour")
            bloom.oval("0,0 .28,.28", "centre_colour*.66")
        else:
            bloom.draw("oval centre_colour*.82 0,0 .2,.2; oval centre_colour 0,0 .13,.13")


def _mirror(edge: str, width: float = 1.0) -> np.ndarray:
    """Returns the outline of a petal or a leaf, given one of its edges."""
    points = parse_points(edge) * (1, width)
    return np.concatenate([points, points[-2::-1] * (1, -1)])
