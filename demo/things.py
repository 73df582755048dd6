"""Everyday objects, drawn from recipes, in which the colours `a` and `b` are random."""

import re
from dataclasses import dataclass, replace
from random import Random

from demo.pen import PAINTS, Pen
from demo.pictures import Subject


@dataclass(frozen=True)
class Thing(Subject):
    """A kind of object, slightly distorted in every image."""

    recipe: str  # shapes for `Pen.draw`

    def draw(self, pen: Pen, rng: Random) -> None:
        pen = replace(pen, paints=dict(zip("ab", rng.sample(PAINTS, 2), strict=True)))
        lean = rng.uniform(-0.1, 0.1)
        axes = ((rng.uniform(0.82, 1.12), 0), (lean, rng.uniform(0.82, 1.12)))
        pen.frame((0, 0), axes).draw(self.recipe)


_RECIPES = """
house: box a -.7,-.1 .7,.8; poly b -.95,-.1 0,-.85 .95,-.1; box brown -.15,.25 .15,.8;
  box glass .3,.1 .55,.4; box glass -.55,.1 -.3,.4
tree: poly brown -.12,.1 .12,.1 .16,1 -.16,1; blob moss -.7,.1 -.6,-.5 0,-.95 .6,-.5 .7,.1 0,.3;
  blob green -.5,-.1 -.4,-.5 0,-.8 .2,-.3
fir: box brown -.1,.6 .1,1; poly moss -.65,.7 0,-.1 .65,.7; poly green -.52,.25 0,-.55 .52,.25;
  poly moss -.38,-.2 0,-1 .38,-.2
fish: poly b -.4,0 -.95,-.4 -.85,0 -.95,.4; blob a -.6,0 0,-.42 .75,-.1 .85,.05 .1,.42;
  poly b -.1,-.35 .3,-.65 .35,-.3; oval white .55,-.08 .1,.1; oval black .57,-.08 .05,.05
cup: line a .5,-.35 .95,-.3 .9,.25 .45,.4 .13; poly a -.6,-.6 .6,-.6 .45,.7 -.45,.7;
  oval b 0,-.6 .6,.15; oval brown 0,-.57 .5,.1
chair: line brown -.4,.2 -.45,.95 .1; line brown .4,.2 .45,.95 .1; line brown -.5,-.95 -.4,.2 .12;
  line brown .15,-.95 .15,.1 .1; poly a -.5,-.9 .17,-.9 .17,-.35 -.47,-.35;
  poly b -.5,.1 .2,.05 .55,.25 -.4,.3
ball: oval a 0,0 .75,.75; blob b -.7,-.2 0,-.5 .7,-.2 .7,.2 0,-.1 -.7,.2
mushroom: blob cream -.2,0 .2,0 .28,.9 -.28,.9; blob red -.85,.1 -.5,-.6 .5,-.6 .85,.1 0,.2;
  oval white -.3,-.3 .13,.1; oval white .3,-.35 .12,.09; oval white .05,-.05 .14,.09
sailboat: line brown 0,-.95 0,.5 .06; poly a .05,-.9 .05,.3 .75,.3; poly b -.05,-.7 -.05,.3 -.6,.3;
  blob brown -.9,.4 .9,.4 .6,.8 -.6,.8
bottle: poly a -.14,-.95 .14,-.95 .16,-.4 .35,-.1 .35,.95 -.35,.95 -.35,-.1 -.16,-.4;
  box cream -.35,.15 .35,.6; box b -.16,-1 .16,-.82
"""
THINGS = {name: Thing(recipe) for name, recipe in re.findall(r"(\w+):([^:]*)(?=\n)", _RECIPES)}
