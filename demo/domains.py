"""The toy domains: their classes and numbers of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from PIL.Image import Image

from demo.birds import Bird
from demo.cars import Car
from demo.flowers import Flower
from demo.pictures import Subject, draw_picture
from demo.things import THINGS

TOY_BIRDS = {
    "two_barred_greenlet": Bird("olive", "cream", "thin", wing_bars=2, eye="ring"),
    "crested_greenlet": Bird("olive", "cream", "thin", crest="peak", wing_bars=1),
    "sickle_billed_greenlet": Bird("olive", "cream", "sickle", wing_bars=1, eye="ring"),
    "streaked_cone_billed_greenlet": Bird("olive", "cream", "cone", breast="streaked", wing_bars=2),
    "fork_tailed_slaty_flycatcher": Bird("slate", "white", "thin", tail="forked", eye="stripe"),
    "plumed_slaty_flycatcher": Bird("slate", "white", "thin", crest="plume", legs="orange"),
    "hook_billed_slaty_shrike": Bird("slate", "white", "hooked", wing_bars=1, eye="stripe"),
    "black_bibbed_slaty_shrike": Bird("slate", "white", "hooked", breast="black", tail="long"),
    "cock_tailed_wren": Bird("russet", "tan", "thin", tail="cocked", eye="stripe"),
    "long_billed_barred_wren": Bird("russet", "tan", "long", tail="cocked", wing_bars=2),
    "black_capped_russet_finch": Bird("russet", "tan", "cone", cap="black", wing_bars=1),
    "fan_crested_russet_finch": Bird("russet", "tan", "cone", crest="fan", wing_bars=2),
}

TOY_FLOWERS = {
    "five_petalled_violet_rockbell": Flower("violet", 5, "round", "button", "oval"),
    "six_petalled_violet_starwort": Flower("violet", 6, "pointed", "button", "blade"),
    "notched_violet_flax": Flower("violet", 5, "notched", "stamens", "blade"),
    "white_eyed_violet_primrose": Flower("violet", 5, "notched", "button", "oval", eye="white"),
    "trumpet_yellow_daffodil": Flower("yellow", 6, "pointed", "trumpet", "blade", "", "orange"),
    "eight_petalled_yellow_sunray": Flower("yellow", 8, "pointed", "disc", "heart"),
    "toothed_yellow_chicory": Flower("yellow", 10, "toothed", "button", "lobed", "", "orange"),
    "four_petalled_yellow_poppy": Flower("yellow", 4, "round", "stamens", "fern", "", "orange"),
    "many_rayed_pink_aster": Flower("pink", 16, "strap", "button", "blade"),
    "spoon_petalled_pink_daisy": Flower("pink", 10, "spoon", "disc", "fern"),
    "red_eyed_pink_mallow": Flower("pink", 5, "round", "stamens", "lobed", eye="red"),
    "four_toothed_pink_clarkia": Flower("pink", 4, "toothed", "stamens", "blade"),
}

TOY_CARS = {
    "slatted_spoked_saloon": Car("saloon", "slats", "round", "five"),
    "kidney_grilled_saloon": Car("saloon", "kidney", "twin", "five"),
    "barred_disc_wheeled_saloon": Car("saloon", "bars", "square", "disc"),
    "oval_grilled_fastback": Car("fastback", "oval", "round", "wire"),
    "slatted_spoilered_fastback": Car("fastback", "slats", "slit", "three", spoiler=True),
    "kidney_grilled_striped_fastback": Car("fastback", "kidney", "slit", "three", stripe="white"),
    "gridded_estate": Car("estate", "grid", "square", "holes"),
    "barred_five_spoked_estate": Car("estate", "bars", "round", "five"),
    "oval_grilled_estate": Car("estate", "oval", "square", "disc"),
    "twin_lamped_hatchback": Car("hatch", "grid", "twin", "three"),
    "spoilered_hatchback": Car("hatch", "bars", "slit", "holes", spoiler=True),
    "black_striped_hatchback": Car("hatch", "oval", "slit", "five", stripe="black"),
}

# Species other than those of the targets, the most frequent first. Birds of the same colours differ
# in their parts.
TOY_INAT = {
    "yellow_bellied_siskin": Bird("olive", "yellow", "cone", wing_bars=1, cap="black"),
    "tall_white_oxeye": Flower("white", 12, "strap", "disc", "lobed"),
    "long_tailed_wagtail": Bird("slate", "grey", "thin", tail="long", breast="black"),
    "blue_flagflower": Flower("blue", 6, "spoon", "stamens", "blade"),
    "russet_capped_sparrow": Bird("brown", "cream", "cone", cap="russet", breast="streaked"),
    "red_field_poppy": Flower("red", 4, "round", "stamens", "lobed", "black", "black"),
    "scarlet_cardinalet": Bird("red", "tan", "cone", crest="peak", bill_colour="orange"),
    "orange_marigold": Flower("orange", 14, "toothed", "button", "fern"),
    "yellow_bellied_honeyeater": Bird("olive", "yellow", "sickle", tail="long", legs="black"),
    "creeping_violet_pansy": Flower("violet", 5, "round", "button", "heart", eye="yellow"),
    "peaked_jaylet": Bird("blue", "white", "hooked", crest="peak", wing_bars=2, breast="black"),
    "yellow_buttercup": Flower("yellow", 5, "round", "stamens", "lobed"),
    "long_billed_snipelet": Bird("brown", "cream", "long", breast="streaked", eye="stripe"),
    "narrow_pink_catchfly": Flower("pink", 5, "notched", "button", "blade"),
    "masked_waxwing": Bird("brown", "cream", "thin", crest="plume", eye="stripe", wing_bars=1),
    "white_woodstar": Flower("white", 7, "pointed", "stamens", "oval"),
    "black_hooded_oriole": Bird("olive", "yellow", "long", cap="black", wing_bars=1),
    "violet_michaelmas": Flower("violet", 18, "strap", "button", "oval"),
    "fork_tailed_swallow": Bird("blue", "white", "thin", tail="forked", breast="russet"),
    "pale_trumpet_lily": Flower("white", 6, "pointed", "trumpet", "blade"),
    "white_bibbed_dipper": Bird("slate", "grey", "thin", tail="cocked", breast="white"),
    "toothed_white_clove": Flower("white", 5, "toothed", "stamens", "blade"),
    "black_bibbed_grosbeak": Bird("red", "tan", "cone", breast="black", wing_bars=2),
    "orange_spoonflower": Flower("orange", 8, "spoon", "disc", "oval"),
    "streaked_thrasher": Bird("brown", "cream", "sickle", "", 2, "long", "streaked"),
    "pink_crosswort": Flower("pink", 4, "pointed", "button", "fern"),
    "fan_crested_hoopoe": Bird("red", "tan", "sickle", crest="fan", wing_bars=2),
    "blue_rayed_cornflower": Flower("blue", 9, "toothed", "stamens", "blade", "", "violet"),
}

# Vehicles with the same outline differ in their parts.
TOY_IMAGENET = {
    "saloon_car": Car("saloon", "grid", "slit", "holes"),
    "limousine": Car("saloon", "oval", "twin", "wire"),
    "taxi": Car("saloon", "bars", "round", "three"),
    "sports_car": Car("fastback", "slats", "twin", "holes"),
    "racing_car": Car("fastback", "grid", "square", "wire"),
    "coupe": Car("fastback", "kidney", "round", "disc"),
    "estate_car": Car("estate", "kidney", "slit", "wire"),
    "hearse": Car("estate", "slats", "twin", "three"),
    "compact_car": Car("hatch", "kidney", "square", "wire"),
    "city_car": Car("hatch", "slats", "round", "disc"),
    "pickup": Car("pickup", "grid", "round", "five"),
    "tow_truck": Car("pickup", "bars", "twin", "disc"),
    "minivan": Car("van", "oval", "slit", "five"),
    "ambulance": Car("van", "grid", "twin", "holes"),
    "school_bus": Car("bus", "slats", "square", "holes"),
    "trolleybus": Car("bus", "oval", "round", "three"),
    "songbird": Bird("brown", "cream", "thin"),
    "daisy": Flower("white", 12, "strap"),
    **THINGS,
}


@dataclass(frozen=True)
class Domain:
    """A toy dataset."""

    classes: Mapping[str, Subject]  # by name, in the order of the labels
    train: Sequence[int]  # the number of training images of each class
    val: int  # the number of validation images per class
    coarse: bool = False  # whether fine traits differ between the images of a class

    def splits(self) -> dict[str, list[tuple[str, int]]]:
        """Returns the path, relative to the folder, and the label of each image by split."""
        splits = {"train": [], "validation": []}
        for label, (name, train) in enumerate(zip(self.classes, self.train, strict=True)):
            paths = [f"images/{name}/{index:04d}.jpg" for index in range(train + self.val)]
            splits["train"] += [(path, label) for path in paths[:train]]
            splits["validation"] += [(path, label) for path in paths[train:]]
        return splits


DOMAINS = {
    "toy_birds": Domain(TOY_BIRDS, (30,) * 12, 50),
    "toy_flowers": Domain(TOY_FLOWERS, (30,) * 12, 50),
    "toy_cars": Domain(TOY_CARS, (30,) * 12, 50),
    # The counts fall geometrically from 320 to 12, as those of species in a survey do.
    "toy_inat": Domain(TOY_INAT, [round(320 * (12 / 320) ** (i / 27)) for i in range(28)], 20),
    "toy_imagenet": Domain(TOY_IMAGENET, (80,) * 28, 20, coarse=True),
}


def draw_image(
    domain: str, label: int, index: int, *, seed: int = 0, image_size: int = 128
) -> Image:
    """Draws an image of a class; the same arguments give the same image."""
    name, subject = list(DOMAINS[domain].classes.items())[label]
    # A seed that is text is hashed with SHA-512: the same in every process, different per image.
    rng = Random(f"{seed}/{domain}/{name}/{index}")
    if DOMAINS[domain].coarse:
        subject = subject.vary(rng)
    return draw_picture(subject, rng, image_size)
