"""Draws the toy domains: small stand-ins for the datasets of the paper.

    python -m slim.datasets.toy --dataset_dir=./data

The targets `toy_birds`, `toy_flowers` and `toy_cars` have 12 similar classes each. The sources for
pre-training are `toy_inat`, 40 other birds and flowers with few images of most classes, and
`toy_imagenet`, 40 everyday objects and vehicles with one bird among them. Each domain is a dataset
like any other: `data/<name>/images/<class>/0007.jpg`, `train.txt`, `val.txt` and `classes.txt`.

The same seed gives the same bytes. Complete domains are skipped; interrupted ones resume.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, check_words, run_command
from slim.datasets.toy.domains import DOMAINS


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define = FlagSet(values)
    define.string("dataset_dir", "./data", "The folder that holds the datasets.")
    define.words("domains", list(DOMAINS), "The domains to draw.")
    define.integer("seed", 0, "The seed of the images.")
    define.integer("image_size", 128, "The length of the shorter side in pixels.", 32, 2048)


def main(values: flags.FlagValues) -> None:
    """Draws the toy domains."""
    from slim.datasets.toy.writing import draw_domain

    check_words("domains", values.domains, list(DOMAINS))
    for name in dict.fromkeys(values.domains):
        folder, domain = Path(values.dataset_dir, name), DOMAINS[name]
        drawn = draw_domain(name, folder, seed=values.seed, image_size=values.image_size)
        count = sum(map(len, domain.splits().values()))
        size = f"{count} images of {len(domain.classes)} classes"
        print(f"{name}: {size} in {folder}{'' if drawn else ', already drawn'}", flush=True)


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
