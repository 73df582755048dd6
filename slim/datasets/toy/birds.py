"""Perched birds in profile."""

import math
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from slim.datasets.toy.pen import Pen, parse_points
from slim.datasets.toy.pictures import Subject

# The outline of the bill, from the forehead around its tip to the chin.
BILLS = {
    "thin": "0,-.06 .15,-.02 .27,.02 .13,.05 0,.06",
    "long": "0,-.06 .3,-.03 .62,.02 .3,.04 0,.06",
    "sickle": "0,-.08 .24,-.06 .44,.06 .54,.26 .36,.1 0,.05",
    "cone": "0,-.15 .13,-.1 .26,.03 .12,.1 0,.13",
    "hooked": "0,-.11 .2,-.1 .31,0 .28,.14 .2,.05 0,.09",
    "flat": "0,-.07 .2,0 .42,-.02 .44,.07 .2,.1 0,.09",
}
# Per feather of the crest: its backward lean from upright (radians) and its length.
CRESTS = {
    "": "",
    "peak": ".5,.22 .75,.34 1,.26",
    "fan": "-.35,.3 -.05,.34 .25,.34 .55,.32 .85,.26",
    "plume": "1.05,.62 1.25,.5",
}
# Length of the tail, spread of its feathers, number of feathers, upward angle.
TAILS = {
    "square": (0.5, 0.16, 4, 0.0),
    "long": (0.95, 0.08, 3, 0.0),
    "forked": (0.66, 0.3, 2, 0.0),
    "cocked": (0.48, 0.2, 4, 0.9),
}


@dataclass(frozen=True)
class Bird(Subject):
    """A species of birds; colours are names in `COLOURS`, "" is none."""

    varying: ClassVar = {
        "body": ("slate", "olive", "russet", "brown", "red", "blue", "yellow", "white", "black"),
        "belly": ("cream", "white", "tan", "grey", "yellow"),
        "crest": ("", "", *CRESTS),
        "wing_bars": (0, 0, 1, 2),
        "breast": ("", "", "red", "black", "streaked"),
        "cap": ("", "", "black", "red", "white"),
        "eye": ("", "ring", "stripe"),
        "legs": ("brown", "orange", "black"),
    }

    body: str
    belly: str
    bill: str = "thin"  # a name in BILLS
    crest: str = ""  # a name in CRESTS
    wing_bars: int = 0
    tail: str = "square"  # a name in TAILS
    breast: str = ""  # the colour of a bib, or "streaked"
    cap: str = ""
    eye: str = ""  # ring, stripe
    legs: str = "brown"
    bill_colour: str = "black"

    def draw(self, pen: Pen, rng: Random) -> None:
        """Draws the bird on a branch, a stone or nothing."""
        at = (0.43 + rng.uniform(-0.06, 0.06), -0.4 + rng.uniform(-0.08, 0.06))
        head = pen.turned(at, rng.uniform(-0.25, 0.25))
        wing = pen.turned((0.22, -0.06), rng.uniform(-0.12, 0.14))
        _draw_perch_and_legs(pen, self.legs, 0.42 + rng.uniform(0.16, 0.24), rng)
        self._draw_tail_and_crest(pen, head, rng.uniform(-0.27, 0.03))

        pen.blob(
            "-.6,.12 -.42,-.08 -.1,-.24 .3,-.3 .5,-.1 .53,.1 .42,.3 .12,.44 -.25,.36", self.body
        )
        pen.stroke(((0.16, 0.0), at), 0.56, self.body, end=0.42)
        head.blob("-.24,.04 -.16,-.19 .05,-.25 .23,-.1 .2,.13 0,.24", self.body)
        pen.blob(".44,-.1 .52,.1 .41,.29 .11,.42 -.26,.34 -.45,.2 0,.2 .28,.05", self.belly)
        if self.breast == "streaked":
            for i in range(9):
                x = 0.46 - 0.085 * (i % 5) - 0.04 * (i // 5)
                y = 0.05 * (i % 5) + 0.11 * (i // 5) - 0.02
                pen.stroke(((x, y), (x - 0.03, y + 0.1)), 0.05, "brown", shade=0.7, end=0.02)
        elif self.breast:
            head.blob(".2,.07 .02,.16 -.14,.38 -.06,.56 .1,.52 .16,.3", self.breast)

        wing.blob(".06,0 -.15,-.13 -.5,-.06 -.86,.14 -.5,.2 -.12,.24", self.body, 0.74)
        for i in range(4):
            feather = ((0.04 * i - 0.3, 0.05 * i), (0.09 * i - 0.78, 0.11 + 0.03 * i))
            wing.stroke(feather, 0.025, self.body, shade=0.5)
        for x in (-0.1, -0.26)[: self.wing_bars]:
            wing.frame((x, 0)).stroke(".02,-.1 -.03,.06 .02,.21", 0.075, "white")
        self._draw_face(head)

    def _draw_tail_and_crest(self, pen: Pen, head: Pen, droop: float) -> None:
        length, spread, feathers, raised = TAILS[self.tail]
        for i in range(feathers):
            feather = pen.turned(
                (-0.5, 0.1), raised + droop + spread * (2 * i / (feathers - 1) - 1)
            )
            shade = 0.62 + 0.06 * (i % 2)
            feather.stroke(((0.2, 0), (-length, 0)), 0.16, self.body, shade=shade, end=0.09)
        for lean, length in parse_points(CRESTS[self.crest]):
            feather = head.turned((-0.04 - 0.1 * math.sin(lean), -0.12), -lean)
            colour = self.cap or self.body
            feather.stroke(((0, 0), (0, -length)), 0.15, colour, shade=0.85, end=0.015)

    def _draw_face(self, head: Pen) -> None:
        if self.cap:
            head.blob("-.25,.02 -.16,-.22 .06,-.26 .23,-.1 .02,-.09", self.cap)
        if self.eye == "stripe":
            head.stroke(".24,-.02 .08,-.04 -.24,.02", 0.1, "black")
        if self.eye == "ring":
            head.disc((0.08, -0.05), 0.1, "white")
        head.disc((0.08, -0.05), 0.055, "black", shade=0.6)
        head.disc((0.1, -0.07), 0.018, "white")
        beak = head.frame((0.19, 0))
        beak.blob(BILLS[self.bill], self.bill_colour)
        beak.stroke("0,.01 .17,.02", 0.015, self.bill_colour, shade=0.5)


def _draw_perch_and_legs(pen: Pen, legs: str, feet: float, rng: Random) -> None:
    ground = pen.frame((0, feet))
    perch = rng.choice(("branch", "branch", "stone", "nothing"))
    if perch == "branch":
        sag = rng.uniform(-0.15, 0.15)
        path = ((-2, 0.06 + sag), (-0.6, 0.03), (0.05, 0.06), (2, -sag))
        width, shade = rng.uniform(0.1, 0.18), rng.uniform(0.6, 1.1)
        ground.stroke(path, width, "brown", shade=shade, end=0.06)
    elif perch == "stone":
        outline = "-.9,.5 -.55,.04 .1,0 .6,.06 1,.5 0,.8"
        ground.blob(outline, "grey", rng.uniform(0.6, 1.0))
    for x in (-0.02, 0.14):
        pen.stroke(((x, 0.36), (x - 0.03, 0.46), (x - 0.02, feet)), 0.055, legs)
        for toe in (-0.08, 0.06, 0.12):
            ground.stroke(((x - 0.02, 0), (x - 0.02 + toe, 0.05)), 0.04, legs)
