"""Pictures of subjects: pose, scene, light, occlusion and camera are random."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from demo.pen import COLOURS, Pen

OVERSAMPLING = 3  # subjects are drawn this many times larger, then reduced, for smooth edges

# Colours at the top and at the bottom; colours, number, half width and half height of the marks,
# the last two relative to the picture.
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


@dataclass(frozen=True)
class Subject:
    """A class of objects with the same traits; all other properties are random."""

    # Values of the traits that differ between the images of a coarse class.
    varying: ClassVar[Mapping[str, Sequence]] = {}
    on_road: ClassVar[bool] = False  # rigid, and standing on a road

    def draw(self, pen: Pen, rng: Random) -> None:
        """Draws one object; its traits are colours of the pen."""
        raise NotImplementedError

    def vary(self, rng: Random) -> "Subject":
        """Returns a subject with random values of the varying traits."""
        return replace(self, **{trait: rng.choice(v) for trait, v in self.varying.items()})


def draw_picture(subject: Subject, rng: Random, image_size: int) -> Image.Image:
    """Draws a subject in a random scene; the same state of `rng` gives the same picture."""
    # The image size is the shorter side; the other one is up to a quarter longer.
    size = (round(image_size * rng.choice((1, 1, 1.125, 1.25))), image_size)
    if not subject.on_road and rng.random() >= 0.7:
        size = size[::-1]
    layer = _draw_subject(subject, rng, size)
    picture = _light(layer, rng, subject.on_road)
    if rng.random() < 0.5:
        _occlude(picture, rng)
    return _photograph(picture, rng)


def _draw_subject(subject: Subject, rng: Random, size: tuple[int, int]) -> Image.Image:
    """Draws a subject in a random pose on a transparent layer."""
    w, h = (OVERSAMPLING * side for side in size)
    rigid = subject.on_road
    unit = min(w, h) * (rng.uniform(0.42, 0.52) if rigid else rng.uniform(0.37, 0.5))
    centre = (w * rng.uniform(0.41, 0.59), h * rng.uniform(0.43, 0.57))
    angle, bend = rng.gauss(0, 0.04 if rigid else 0.16), 0 if rigid else rng.uniform(-0.14, 0.14)
    scale = (unit * rng.choice((-1, 1)), unit)
    tint = [rng.uniform(0.9, 1.08) for _ in range(3)]
    layer = Image.new("RGBA", (w, h))
    pen = Pen(ImageDraw.Draw(layer), tint=tint, paints=vars(subject))
    subject.draw(pen.turned(centre, angle, scale).bent(bend), rng)
    return layer.reduce(OVERSAMPLING)


def _light(layer: Image.Image, rng: Random, road: bool) -> Image.Image:
    """Puts a layer into a scene, lit from above and one side, with a soft shadow behind it."""
    alpha, shorter = layer.getchannel("A"), min(layer.size)
    soft = alpha.filter(ImageFilter.GaussianBlur(shorter / 26))
    slant, drop = rng.choice((-1, 1)) * shorter // 26, shorter // 20
    light = soft.rotate(0, translate=(slant, -drop), fillcolor=255)
    lit = _dim(layer.convert("RGB"), light, rng.uniform(0.5, 0.75))
    shadow = soft.rotate(0, translate=(-slant, drop)).point(lambda value: value / 3)
    picture = _draw_scene(rng, layer.size, road)
    picture.paste((24, 28, 30), (0, 0), shadow)
    picture.paste(lit, (0, 0), alpha)
    return picture


def _draw_scene(rng: Random, size: tuple[int, int], road: bool) -> Image.Image:
    """Draws a background out of focus: at half the size, blurred and enlarged."""
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
    """Covers a part of the picture with a leaf, a twig or blades of grass, mostly out of focus."""
    layer = Image.new("RGBA", picture.size)
    pen = Pen(ImageDraw.Draw(layer), lambda points: points * picture.size)
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.15, 0.9)
    kind = rng.choice(("leaf", "twig", "grass"))
    colour = "brown" if kind == "twig" else rng.choice(("moss", "green", "olive"))
    if kind == "leaf":
        size = rng.uniform(0.14, 0.24)
        leaf = pen.turned((x, y), rng.uniform(0, math.tau), size)
        leaf.blob("-1,0 -.4,-.42 .3,-.42 1,0 .3,.42 -.4,.42", colour)
    elif kind == "twig":
        rise = rng.uniform(-0.8, 0.8)
        pen.line(((0, y - rise * x), (1, y + rise * (1 - x))), colour, 0.035, 0.02)
    else:
        for _ in range(rng.randrange(4, 9)):
            foot, lean = x + rng.uniform(-0.25, 0.25), rng.uniform(-0.12, 0.12)
            pen.line(((foot, 1), (foot + lean, rng.uniform(0.45, 0.8))), colour, 0.04, 0.005)
    blur = ImageFilter.GaussianBlur(rng.uniform(0.006, 0.016) * picture.height)
    shade = rng.uniform(0.5, 1.1)
    fill = tuple(round(value * shade) for value in COLOURS[colour])
    picture.paste(fill, (0, 0), layer.getchannel("A").filter(blur))


def _photograph(picture: Image.Image, rng: Random) -> Image.Image:
    """Applies exposure, white balance, uneven light, a little defocus and grain."""
    gain = rng.uniform(0.85, 1.3)
    r, g, b = (gain * rng.uniform(0.95, 1.05) for _ in range(3))
    picture = picture.convert("RGB", (r, 0, 0, 0, 0, g, 0, 0, 0, 0, b, 0))
    size = picture.size
    across = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize(size)
    picture = _dim(picture, across, rng.uniform(0.6, 1.0))
    if rng.random() < 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(min(size) * rng.uniform(0.003, 0.007)))
    grain = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
    return Image.blend(picture, grain.convert("RGB"), rng.uniform(0.0, 0.04))


def _dim(picture: Image.Image, light: Image.Image, least: float) -> Image.Image:
    """Multiplies a picture by a light, which is scaled to the range from `least` to 1."""
    light = light.point([round(255 * least + (1 - least) * i) for i in range(256)])
    return ImageChops.multiply(picture, light.convert("RGB"))
