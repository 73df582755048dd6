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
lamp: line black 0,0 0,.85 .08; oval black 0,.88 .4,.1; poly a -.3,-.9 .3,-.9 .65,.05 -.65,.05;
  poly b -.63,-.08 .63,-.08 .65,.05 -.65,.05
star: poly a 0,-.95 .22,-.3 .9,-.3 .36,.12 .56,.8 0,.38 -.56,.8 -.36,.12 -.9,-.3 -.22,-.3
key: oval a -.55,0 .4,.4; oval b -.6,0 .18,.18; line a -.2,0 .95,0 .16; line a .6,0 .6,.35 .14;
  line a .85,0 .85,.3 .14
umbrella: line brown 0,-.6 0,.7 .1,.9 .28,.8 .07;
  blob a -.95,.05 -.6,-.65 0,-.9 .6,-.65 .95,.05 0,-.1;
  blob b -.35,-.05 -.2,-.6 0,-.85 .2,-.6 .35,-.05
clock: oval a 0,0 .8,.8; oval white 0,0 .66,.66; line black 0,0 0,-.5 .08;
  line black 0,0 .35,.15 .1; oval black 0,0 .07,.07
book: poly a -.95,-.5 0,-.4 .95,-.5 .95,.6 0,.7 -.95,.6;
  poly white -.85,-.5 -.02,-.38 -.02,.6 -.85,.5; poly cream .85,-.5 .02,-.38 .02,.6 .85,.5;
  line grey -.7,-.2 -.2,-.13 .05; line grey .2,-.13 .7,-.2 .05; line grey -.7,.05 -.2,.12 .05;
  line grey .2,.12 .7,.05 .05
hat: oval a 0,.35 .95,.25; poly a -.5,.35 -.42,-.6 .42,-.6 .5,.35; oval a 0,-.6 .42,.12;
  poly b -.5,.35 -.48,.08 .48,.08 .5,.35
guitar: line brown 0,-.2 0,-.95 .14;
  blob a -.35,-.05 0,-.2 .35,-.05 .3,.2 .5,.6 0,.95 -.5,.6 -.3,.2; oval black 0,.3 .15,.15;
  line black -.2,.65 .2,.65 .07; line white 0,-.9 0,.65 .02
balloon: line grey 0,.45 .1,.7 -.05,1 .03; oval a 0,-.25 .58,.7; poly a -.1,.55 0,.42 .1,.55;
  oval white -.22,-.5 .1,.18
kite: line b 0,.6 .3,.75 .1,.9 .4,1 .04; poly a 0,-.95 .55,-.25 0,.6 -.55,-.25;
  poly b 0,-.95 .55,-.25 0,-.25; poly b 0,.6 -.55,-.25 0,-.25
table: line brown -.75,-.1 -.8,.8 .1; line brown .75,-.1 .8,.8 .1; line brown -.4,-.2 -.42,.5 .08;
  line brown .4,-.2 .42,.5 .08; poly a -.95,-.05 -.6,-.35 .6,-.35 .95,-.05;
  box brown -.95,-.05 .95,.07
bell: oval brown 0,.65 .16,.16; blob a -.7,.55 -.4,.1 -.3,-.5 0,-.75 .3,-.5 .4,.1 .7,.55 0,.62;
  oval b 0,-.8 .12,.12; line b -.6,.42 0,.5 .6,.42 .08
"""
THINGS = {name: Thing(recipe) for name, recipe in re.findall(r"(\w+):([^:]*)(?=\n)", _RECIPES)}
