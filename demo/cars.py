"""Cars, seen from the side and the front."""

import math
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

import numpy as np

from demo.pen import PAINTS, Pen, divide_circle, parse_points, polar
from demo.pictures import Subject

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
# What is drawn in the frame of the front: x from the near side to the far one, y from the bonnet.
_SLOT = "box black*.8 .28,.14 .72,.7;"
_BARS = ";".join(f"box white*.9 {x},.14 {x + 0.045},.7" for x in (0.305, 0.415, 0.525, 0.635))
_SLATS = ";".join(f"box white*.9 .28,{y} .72,{y + 0.075}" for y in (0.2, 0.39, 0.58))
GRILLES = {
    "bars": _SLOT + _BARS,
    "slats": _SLOT + _SLATS,
    "grid": f"{_SLOT}{_BARS};{_SLATS}",
    "kidney": "oval white*.95 .39,.42 .12,.29; oval black .39,.42 .08,.22;"
    "oval white*.95 .61,.42 .12,.29; oval black .61,.42 .08,.22",
    "oval": "oval white*.95 .5,.42 .24,.24; oval black .5,.42 .19,.16",
}
LIGHTS = {
    "round": "oval grey*.7 0,.38 .125,.23; oval cream*1.07 0,.38 .1,.18",
    "square": "box grey*.7 -.11,.2 .11,.58; box cream*1.07 -.085,.25 .085,.53",
    "slit": "box cream*1.07 -.12,.16 .12,.32",
    "twin": "oval cream*1.07 0,.25 .085,.14; oval cream*1.07 0,.55 .085,.14",
}
SPOKES = {"three": (3, 0.085), "five": (5, 0.055), "wire": (12, 0.014)}  # number, width
FACES = "paint*.6", "paint*1.05", "glass*.8", "paint*1.12", "glass*1.15", "paint*1.08", "paint*.8"


@dataclass(frozen=True)
class Car(Subject):
    """A model of cars; each model comes in every paint."""

    varying: ClassVar = {"stripe": ("", "", "white", "black")}
    on_road: ClassVar = True

    roof: str  # a name in ROOFS
    grille: str  # a name in GRILLES
    lights: str  # a name in LIGHTS
    wheels: str  # a name in SPOKES, "disc" or "holes"
    spoiler: bool = False
    stripe: str = ""  # its colour, "" is none

    def draw(self, pen: Pen, rng: Random) -> None:
        # The outline of the side is extruded along the width of the car.
        pen = replace(pen, paints=vars(self) | {"paint": rng.choice(PAINTS)})
        yaw = rng.uniform(0.45, 0.8)
        length, width = 1 - 0.3 * yaw, 0.72 * yaw  # as seen: the side is foreshortened
        side = pen.frame((-width / 2, 0), ((length, 0), (0, 1)))
        across = np.array((width / length, -0.13 * yaw))  # from the near side to the far one
        profile = parse_points(f"-1,.36 -1,-.12 {ROOFS[self.roof]} .96,-.06 1,.36")
        roof, bonnet, bumper = profile[2:-2], *profile[-2:]
        wheels = [side.frame((x, 0.37)) for x in (-0.58, 0.57)]

        def extrude(edge: np.ndarray, colour: str) -> None:
            side.poly([*edge, *(edge[::-1] + across)], colour)

        for wheel in wheels:
            wheel.frame(across).draw("oval black*.7 0,-.01 .2,.22")
        for i, colour in enumerate(FACES):
            extrude(profile[i : i + 2], colour)
        side.poly(profile, "paint*.95")
        side.draw("poly stripe -1,.02 .97,.04 .975,.13 -1,.11")
        side.poly(roof + parse_points(".1,.02 .06,.07 -.02,.07 -.1,.02"), "glass*.7")
        door, top = side.frame((roof[1::2, 0].mean(), 0)), roof[1, 1] + 0.02
        door.line(((0, top), (0, -0.1)), "paint*.9", 0.06)
        door.draw("line paint*.6 0,-.1 0,.3 .018; line grey*.6 .06,0 .18,0 .03")
        side.draw("box black*1.3 -1,.3 1,.38")
        if self.spoiler:
            side.draw("line paint*.6 -.86,-.12 -.92,-.32 .06")
            extrude(parse_points("-1.1,-.35 -.82,-.29"), "paint*.7")
        for wheel in wheels:
            self._draw_wheel(wheel, rng.uniform(0, math.tau))
        front = side.frame(bonnet, (across, bumper - bonnet))
        front.draw("box black*1.3 0,.8 1,1.06; box white*.95 .34,.8 .66,.94")
        front.draw(GRILLES[self.grille])
        for x in (0.13, 0.87):
            front.frame((x, 0)).draw(LIGHTS[self.lights])

    def _draw_wheel(self, wheel: Pen, spin: float) -> None:
        wheel.draw("oval black*.8 0,0 .25,.25; oval grey*1.25 0,0 .175,.175")
        if self.wheels == "disc":
            wheel.draw("oval grey*.95 0,0 .1,.1; oval grey*1.45 0,0 .07,.07")
        elif self.wheels == "holes":
            for hole in polar(0.105, divide_circle(6, spin)):
                wheel.frame(hole).draw("oval black 0,0 .036,.036")
        else:
            wheel.draw("oval black*1.1 0,0 .15,.15")
            count, width = SPOKES[self.wheels]
            for end in polar(0.165, divide_circle(count, spin)):
                wheel.line(((0, 0), end), "grey*1.4", width)
