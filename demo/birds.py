"""Perched birds in profile."""

import math
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import numpy as np

from demo.pen import Pen, parse_points
from demo.pictures import Subject

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

# What surrounds the pupil.
EYES = {
    "": "",
    "ring": "oval white .08,-.05 .1,.1;",
    "stripe": "line black .24,-.02 .08,-.04 -.24,.02 .1;",
}
TORSO = "-.6,.12 -.42,-.08 -.1,-.24 .3,-.3 .5,-.1 .53,.1 .42,.3 .12,.44 -.25,.36"


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
    eye: str = ""  # a name in EYES
    legs: str = "brown"
    bill_colour: str = "black"

    def draw(self, pen: Pen, rng: Random) -> None:
        at = (0.43 + rng.uniform(-0.06, 0.06), -0.4 + rng.uniform(-0.08, 0.06))
        head = pen.turned(at, rng.uniform(-0.25, 0.25))
        wing = pen.turned((0.22, -0.06), rng.uniform(-0.12, 0.14))
        _draw_perch_and_legs(pen, 0.42 + rng.uniform(0.16, 0.24), rng)

        length, spread, feathers, raised = TAILS[self.tail]
        tail = pen.turned((-0.5, 0.1), raised + rng.uniform(-0.27, 0.03))
        for i, angle in enumerate(np.linspace(-spread, spread, feathers)):
            feather, colour = tail.turned((0, 0), angle), f"body*{0.62 + 0.06 * (i % 2)}"
            feather.line(((0.2, 0), (-length, 0)), colour, 0.16, 0.09)
        for lean, length in parse_points(CRESTS[self.crest]):
            feather = head.turned((-0.04 - 0.1 * math.sin(lean), -0.12), -lean)
            feather.line(((0, 0), (0, -length)), "cap*.85" if self.cap else "body*.85", 0.15, 0.015)

        pen.blob(TORSO, "body")
        pen.line(((0.16, 0), at), "body", 0.56, 0.42)
        head.draw("blob body -.24,.04 -.16,-.19 .05,-.25 .23,-.1 .2,.13 0,.24")
        pen.draw("blob belly .44,-.1 .52,.1 .41,.29 .11,.42 -.26,.34 -.45,.2 0,.2 .28,.05")
        if self.breast == "streaked":
            for row, column in (divmod(i, 5) for i in range(9)):
                x, y = 0.46 - 0.085 * column - 0.04 * row, 0.05 * column + 0.11 * row - 0.02
                pen.frame((x, y)).draw("line brown*.7 0,0 -.03,.1 .05 .02")
        else:
            head.draw("blob breast .2,.07 .02,.16 -.14,.38 -.06,.56 .1,.52 .16,.3")

        wing.draw("blob body*.74 .06,0 -.15,-.13 -.5,-.06 -.86,.14 -.5,.2 -.12,.24")
        for i in range(4):
            feather = ((0.04 * i - 0.3, 0.05 * i), (0.09 * i - 0.78, 0.11 + 0.03 * i))
            wing.line(feather, "body*.5", 0.025)
        for x in (-0.1, -0.26)[: self.wing_bars]:
            wing.frame((x, 0)).draw("line white .02,-.1 -.03,.06 .02,.21 .075")

        head.draw("blob cap -.25,.02 -.16,-.22 .06,-.26 .23,-.1 .02,-.09")
        pupil = "oval black*.6 .08,-.05 .055,.055; oval white .1,-.07 .018,.018"
        head.draw(EYES[self.eye] + pupil)
        bill = f"blob bill_colour {BILLS[self.bill]}; line bill_colour*.5 0,.01 .17,.02 .015"
        head.frame((0.19, 0)).draw(bill)


def _draw_perch_and_legs(pen: Pen, feet: float, rng: Random) -> None:
    ground = pen.frame((0, feet))
    perch = rng.choice(("branch", "branch", "stone", "nothing"))
    if perch == "branch":
        sag, width = rng.uniform(-0.15, 0.15), rng.uniform(0.1, 0.18)
        path = ((-2, 0.06 + sag), (-0.6, 0.03), (0.05, 0.06), (2, -sag))
        ground.line(path, f"brown*{rng.uniform(0.6, 1.1)}", width, 0.06)
    elif perch == "stone":
        ground.blob("-.9,.5 -.55,.04 .1,0 .6,.06 1,.5 0,.8", f"grey*{rng.uniform(0.6, 1.0)}")
    for x in (-0.02, 0.14):
        pen.line(((x, 0.36), (x - 0.03, 0.46), (x - 0.02, feet)), "legs", 0.055)
        for toe in (-0.08, 0.06, 0.12):
            ground.line(((x - 0.02, 0), (x - 0.02 + toe, 0.05)), "legs", 0.04)
