"""Draws the toy domains: small stand-ins for the paper's data sets, made on the spot.

Three targets of 12 look-alike classes, `toy_birds`, `toy_flowers` and `toy_cars`, and two sources
to pre-train on: `toy_inat`, 40 other birds and flowers with few images of most of them, and
`toy_imagenet`, 40 coarse things, cars and a few birds among them. On disk they are like any other
data set: `data/<name>/images/<class>/0007.jpg`, `train.txt`, `val.txt` and `classes.txt`.

    python -m slim.datasets.toy --dataset_dir=./data

The same seed gives the same bytes. What is complete is left alone; what was interrupted goes on.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError, did_you_mean
from slim.datasets.toy.domains import DOMAINS, draw_domain


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("dataset_dir", "./data", "The folder in which each domain gets one.")
    define.words("domains", list(DOMAINS), "Which to draw.")
    define.integer("seed", 0, "The same seed gives the same images.")
    define.integer("image_size", 128, "The shorter side of the images, in pixels.", 32)


def main(values: flags.FlagValues) -> None:
    """Draws toy domains: images, train.txt, val.txt and classes.txt, a folder each."""
    for name in values.domains:  # before the first is drawn
        if name not in DOMAINS:
            raise UserError(
                f"--domains: no toy domain is called '{name}': {did_you_mean(name, list(DOMAINS))}"
            )
    for name in dict.fromkeys(values.domains):
        directory = Path(values.dataset_dir) / name
        drawn = draw_domain(name, directory, values.seed, image_size=values.image_size)
        domain = DOMAINS[name]
        images = sum(domain.train) + domain.val * len(domain.classes)
        print(
            f"{name}: {images} images of {len(domain.classes)} classes in {directory}"
            + ("" if drawn else ", already drawn"),
            flush=True,
        )


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
