"""The toy domains: their classes, and the datasets drawn from them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image
from tqdm import tqdm

from slim.common.errors import UserError, did_you_mean
from slim.common.files import exclusive, replacing, write_whole
from slim.common.workers import WorkerError, available_cores, run_jobs
from slim.datasets.lists import CLASSES, compose_class_names, compose_list
from slim.datasets.toy.drawing import Bird, Car, Flower, Subject, draw_picture, loosened

VERSION = 1  # of the drawing: goes up when the same seed gives other bytes
NOTE = "toy.json"  # what a folder was drawn with

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

# Other species than the targets', the commonest first.
TOY_INAT = {
    "yellow_bellied_olive_siskin": Bird("olive", "yellow", "cone", wing_bars=1, cap="black"),
    "tall_white_oxeye": Flower("white", 12, "strap", "disc", "lobed"),
    "grey_backed_wagtail": Bird("slate", "yellow", "thin", tail="long", breast="black"),
    "blue_flagflower": Flower("blue", 6, "spoon", "stamens", "blade"),
    "hoary_sparrow": Bird("brown", "grey", "cone", cap="russet", breast="streaked"),
    "red_field_poppy": Flower("red", 4, "round", "stamens", "lobed", "black", "black"),
    "scarlet_cardinalet": Bird("red", "red", "cone", crest="peak", bill_colour="orange"),
    "orange_marigold": Flower("orange", 14, "toothed", "button", "fern"),
    "plain_olive_honeyeater": Bird("olive", "tan", "sickle", tail="long", legs="black"),
    "creeping_violet_pansy": Flower("violet", 5, "round", "button", "heart", eye="yellow"),
    "blue_jaylet": Bird("blue", "white", "hooked", crest="peak", wing_bars=2, breast="black"),
    "yellow_buttercup": Flower("yellow", 5, "round", "stamens", "lobed"),
    "long_billed_snipelet": Bird("brown", "cream", "long", breast="streaked", eye="stripe"),
    "narrow_pink_catchfly": Flower("pink", 5, "notched", "button", "blade"),
    "masked_tan_waxwing": Bird("tan", "cream", "thin", crest="plume", eye="stripe", wing_bars=1),
    "white_woodstar": Flower("white", 7, "pointed", "stamens", "oval"),
    "black_hooded_oriole": Bird("yellow", "yellow", "long", cap="black", wing_bars=1),
    "violet_michaelmas": Flower("violet", 18, "strap", "button", "oval"),
    "fork_tailed_swallow": Bird("blue", "tan", "thin", tail="forked", breast="russet"),
    "pale_trumpet_lily": Flower("white", 6, "pointed", "trumpet", "blade"),
    "slaty_dipper": Bird("slate", "russet", "thin", tail="cocked", breast="white"),
    "toothed_white_clove": Flower("white", 5, "toothed", "stamens", "blade"),
    "red_breasted_grosbeak": Bird("black", "white", "cone", breast="red", wing_bars=2),
    "orange_spoonflower": Flower("orange", 8, "spoon", "disc", "oval"),
    "russet_thrasher": Bird(
        "russet", "cream", "sickle", breast="streaked", wing_bars=2, tail="long"
    ),
    "pink_crosswort": Flower("pink", 4, "pointed", "button", "fern"),
    "fan_crested_hoopoe": Bird("tan", "tan", "sickle", crest="fan", wing_bars=2),
    "blue_rayed_cornflower": Flower("blue", 9, "toothed", "stamens", "blade", "", "violet"),
    "grey_shovelbill": Bird("grey", "white", "flat", legs="orange", bill_colour="orange"),
    "heart_leaved_yellow_violet": Flower("yellow", 5, "notched", "button", "heart", eye="brown"),
    "teal_kingfisherlet": Bird("teal", "orange", "long", crest="fan", breast="white"),
    "red_pimpernel": Flower("red", 5, "pointed", "button", "oval", eye="violet"),
    "ring_eyed_whistler": Bird("slate", "grey", "cone", crest="peak", eye="ring", cap="black"),
    "striped_pink_cosmos": Flower("pink", 8, "notched", "disc", "fern", eye="violet"),
    "black_drongo": Bird("black", "black", "hooked", tail="forked", crest="plume"),
    "dwarf_blue_gentian": Flower("blue", 5, "pointed", "trumpet", "oval", "", "white"),
    "olive_backed_vireo": Bird("olive", "white", "hooked", cap="slate", eye="ring"),
    "yellow_hawkbit": Flower("yellow", 20, "toothed", "button", "blade"),
    "white_capped_redstart": Bird("russet", "black", "thin", cap="white", tail="forked"),
    "orange_starlily": Flower("orange", 6, "pointed", "stamens", "blade", "", "brown"),
}

TOY_IMAGENET = {
    "saloon_car": Car("saloon"),
    "sports_car": Car("fastback"),
    "estate_car": Car("estate"),
    "compact_car": Car("hatch"),
    "pickup": Car("pickup"),
    "minivan": Car("van"),
    "bus": Car("bus"),
    "songbird": Bird("brown", "cream", "thin"),
    "duck": Bird("brown", "cream", "flat", bill_colour="orange"),
    "parrot": Bird("green", "yellow", "hooked", tail="long"),
    "daisy": Flower("white", 12, "strap"),
    "house": (
        "poly a -.7,-.1 .7,-.1 .7,.8 -.7,.8;poly b -.95,-.1 0,-.85 .95,-.1;"
        "poly brown -.15,.25 .15,.25 .15,.8 -.15,.8;poly glass .3,.1 .55,.1 .55,.4 .3,.4;"
        "poly glass -.55,.1 -.3,.1 -.3,.4 -.55,.4"
    ),
    "tree": (
        "poly brown -.12,.1 .12,.1 .16,1 -.16,1;"
        "blob leaf -.7,.1 -.6,-.5 0,-.95 .6,-.5 .7,.1 0,.3;"
        "blob green -.5,-.1 -.4,-.5 0,-.8 .2,-.3"
    ),
    "fir": (
        "poly brown -.1,.6 .1,.6 .1,1 -.1,1;poly leaf -.65,.7 0,-.1 .65,.7;"
        "poly green -.52,.25 0,-.55 .52,.25;poly leaf -.38,-.2 0,-1 .38,-.2"
    ),
    "fish": (
        "poly b -.4,0 -.95,-.4 -.85,0 -.95,.4;blob a -.6,0 0,-.42 .75,-.1 .85,.05 .1,.42;"
        "poly b -.1,-.35 .3,-.65 .35,-.3;oval white .55,-.08 .1,.1;oval black .57,-.08 .05,.05"
    ),
    "cup": (
        "line a .5,-.35 .95,-.3 .9,.25 .45,.4 .13;poly a -.6,-.6 .6,-.6 .45,.7 -.45,.7;"
        "oval b 0,-.6 .6,.15;oval brown 0,-.57 .5,.1"
    ),
    "chair": (
        "line brown -.4,.2 -.45,.95 .1;line brown .4,.2 .45,.95 .1;"
        "line brown -.5,-.95 -.4,.2 .12;line brown .15,-.95 .15,.1 .1;"
        "poly a -.5,-.9 .17,-.9 .17,-.35 -.47,-.35;poly b -.5,.1 .2,.05 .55,.25 -.4,.3"
    ),
    "ball": "oval a 0,0 .75,.75;blob b -.7,-.2 0,-.5 .7,-.2 .7,.2 0,-.1 -.7,.2",
    "mushroom": (
        "blob cream -.2,0 .2,0 .28,.9 -.28,.9;blob red -.85,.1 -.5,-.6 .5,-.6 .85,.1 0,.2;"
        "oval white -.3,-.3 .13,.1;oval white .3,-.35 .12,.09;oval white .05,-.05 .14,.09"
    ),
    "sailboat": (
        "line brown 0,-.95 0,.5 .06;poly a .05,-.9 .05,.3 .75,.3;poly b -.05,-.7 -.05,.3 -.6,.3;"
        "blob brown -.9,.4 .9,.4 .6,.8 -.6,.8"
    ),
    "bottle": (
        "poly a -.14,-.95 .14,-.95 .16,-.4 .35,-.1 .35,.95 -.35,.95 -.35,-.1 -.16,-.4;"
        "poly cream -.35,.15 .35,.15 .35,.6 -.35,.6;poly b -.16,-1 .16,-1 .16,-.82 -.16,-.82"
    ),
    "lamp": (
        "line black 0,0 0,.85 .08;oval black 0,.88 .4,.1;poly a -.3,-.9 .3,-.9 .65,.05 -.65,.05;"
        "poly b -.63,-.08 .63,-.08 .65,.05 -.65,.05"
    ),
    "star": "poly a 0,-.95 .22,-.3 .9,-.3 .36,.12 .56,.8 0,.38 -.56,.8 -.36,.12 -.9,-.3 -.22,-.3",
    "key": (
        "oval a -.55,0 .4,.4;oval b -.6,0 .18,.18;line a -.2,0 .95,0 .16;line a .6,0 .6,.35 .14;"
        "line a .85,0 .85,.3 .14"
    ),
    "umbrella": (
        "line brown 0,-.6 0,.7 .1,.9 .28,.8 .07;"
        "blob a -.95,.05 -.6,-.65 0,-.9 .6,-.65 .95,.05 0,-.1;"
        "blob b -.35,-.05 -.2,-.6 0,-.85 .2,-.6 .35,-.05"
    ),
    "clock": (
        "oval a 0,0 .8,.8;oval white 0,0 .66,.66;line black 0,0 0,-.5 .08;"
        "line black 0,0 .35,.15 .1;oval black 0,0 .07,.07"
    ),
    "book": (
        "poly a -.95,-.5 0,-.4 .95,-.5 .95,.6 0,.7 -.95,.6;"
        "poly white -.85,-.5 -.02,-.38 -.02,.6 -.85,.5;poly cream .85,-.5 .02,-.38 .02,.6 .85,.5;"
        "line grey -.7,-.2 -.2,-.13 .05;line grey .2,-.13 .7,-.2 .05;"
        "line grey -.7,.05 -.2,.12 .05;line grey .2,.12 .7,.05 .05"
    ),
    "hat": (
        "oval a 0,.35 .95,.25;poly a -.5,.35 -.42,-.6 .42,-.6 .5,.35;oval a 0,-.6 .42,.12;"
        "poly b -.5,.35 -.48,.08 .48,.08 .5,.35"
    ),
    "guitar": (
        "line brown 0,-.2 0,-.95 .14;"
        "blob a -.35,-.05 0,-.2 .35,-.05 .3,.2 .5,.6 0,.95 -.5,.6 -.3,.2;oval black 0,.3 .15,.15;"
        "line black -.2,.65 .2,.65 .07;line white 0,-.9 0,.65 .02"
    ),
    "balloon": (
        "line grey 0,.45 .1,.7 -.05,1 .03;oval a 0,-.25 .58,.7;poly a -.1,.55 0,.42 .1,.55;"
        "oval white -.22,-.5 .1,.18"
    ),
    "kite": (
        "line b 0,.6 .3,.75 .1,.9 .4,1 .04;poly a 0,-.95 .55,-.25 0,.6 -.55,-.25;"
        "poly b 0,-.95 .55,-.25 0,-.25;poly b 0,.6 -.55,-.25 0,-.25"
    ),
    "table": (
        "line brown -.75,-.1 -.8,.8 .1;line brown .75,-.1 .8,.8 .1;"
        "line brown -.4,-.2 -.42,.5 .08;line brown .4,-.2 .42,.5 .08;"
        "poly a -.95,-.05 -.6,-.35 .6,-.35 .95,-.05;"
        "poly brown -.95,-.05 .95,-.05 .95,.07 -.95,.07"
    ),
    "bell": (
        "oval brown 0,.65 .16,.16;blob a -.7,.55 -.4,.1 -.3,-.5 0,-.75 .3,-.5 .4,.1 .7,.55 0,.62;"
        "oval b 0,-.8 .12,.12;line b -.6,.42 0,.5 .6,.42 .08"
    ),
    "envelope": (
        "poly white -.9,-.55 .9,-.55 .9,.55 -.9,.55;line grey -.9,.55 -.2,0 .04;"
        "line grey .9,.55 .2,0 .04;poly cream -.9,-.55 .9,-.55 0,.15;"
        "line grey -.9,-.55 0,.15 .04;line grey .9,-.55 0,.15 .04;oval a 0,.13 .12,.12"
    ),
    "candle": (
        "poly a -.25,-.3 .25,-.3 .25,.85 -.25,.85;oval b 0,.88 .6,.12;"
        "line black 0,-.3 0,-.48 .05;blob orange 0,-1 .16,-.6 0,-.4 -.16,-.6;"
        "blob yellow 0,-.8 .08,-.58 0,-.46 -.08,-.58"
    ),
    "anchor": (
        "oval a 0,-.75 .2,.2;oval b 0,-.75 .1,.1;line a 0,-.55 0,.8 .14;"
        "line a -.4,-.35 .4,-.35 .12;line a -.8,.25 -.55,.7 0,.85 .55,.7 .8,.25 .13"
    ),
    "apple": (
        "blob red 0,-.4 .45,-.6 .8,-.2 .55,.6 .1,.7 -.1,.7 -.55,.6 -.8,-.2 -.45,-.6;"
        "line brown 0,-.4 .08,-.85 .08;blob leaf .08,-.7 .35,-.95 .6,-.8 .3,-.65"
    ),
    "butterfly": (
        "blob a 0,-.1 .3,-.75 .9,-.7 .7,-.05;blob a 0,-.1 -.3,-.75 -.9,-.7 -.7,-.05;"
        "blob b 0,0 .6,.05 .7,.6 .25,.65;blob b 0,0 -.6,.05 -.7,.6 -.25,.65;"
        "line black 0,-.45 0,.55 .12;line black 0,-.4 .25,-.85 .03;line black 0,-.4 -.25,-.85 .03"
    ),
    "rocket": (
        "poly b -.25,.3 -.6,.85 -.2,.7;poly b .25,.3 .6,.85 .2,.7;blob orange 0,1 .15,.6 -.15,.6;"
        "blob a 0,-1 .3,-.4 .28,.6 0,.72 -.28,.6 -.3,-.4;oval white 0,-.25 .15,.15;"
        "oval glass 0,-.25 .1,.1"
    ),
    "cake": (
        "oval grey 0,.7 .95,.15;poly a -.7,.05 .7,.05 .7,.7 -.7,.7;"
        "poly b -.7,.3 .7,.3 .7,.42 -.7,.42;oval white 0,.03 .7,.16;line red 0,0 0,-.55 .09;"
        "blob orange 0,-.85 .09,-.65 0,-.53 -.09,-.65"
    ),
}


@dataclass(frozen=True)
class Domain:
    """A data set to draw.

    Attributes:
        classes: From a class's name to what is drawn, in the order of the labels.
        train: How many training images each class has.
        val: How many validation images each class has.
        coarse: Whether a class is a coarse thing, whose fine traits differ from image to image.
    """

    classes: dict[str, Subject]
    train: tuple[int, ...]
    val: int
    coarse: bool = False


def _long_tail(most: int, least: int, count: int) -> tuple[int, ...]:
    """Counts that fall from `most` to `least` geometrically, as species in a survey do."""
    return tuple(round(most * (least / most) ** (i / (count - 1))) for i in range(count))


DOMAINS = {
    "toy_birds": Domain(TOY_BIRDS, (30,) * 12, 15),
    "toy_flowers": Domain(TOY_FLOWERS, (30,) * 12, 15),
    "toy_cars": Domain(TOY_CARS, (30,) * 12, 15),
    "toy_inat": Domain(TOY_INAT, _long_tail(64, 6, 40), 6),
    "toy_imagenet": Domain(TOY_IMAGENET, (25,) * 40, 6, coarse=True),
}


def draw_image(
    domain: str, class_id: int, index: int, seed: int = 0, image_size: int = 128
) -> Image.Image:
    """Draws one image of a class, always the same one for the same arguments.

    Args:
        domain: A name in `DOMAINS`.
        class_id: The class's label.
        index: Which image of the class, from 0: training images first, then validation.
        seed: Of the whole data set.
        image_size: The shorter side, in pixels.

    Returns:
        An RGB image.
    """
    name, subject = list(DOMAINS[domain].classes.items())[class_id]
    # Text seeds go through SHA-512, so they are the same in every process, and no two images share.
    rng = Random(f"{seed}/{domain}/{name}/{index}")
    if DOMAINS[domain].coarse:
        subject = loosened(subject, rng)
    return draw_picture(subject, rng, image_size)


def draw_domain(
    name: str,
    directory: Path,
    seed: int = 0,
    num_workers: int | None = None,
    image_size: int = 128,
) -> bool:
    """Draws a domain into a folder; goes on where an interrupted run stopped.

    Args:
        name: A name in `DOMAINS`.
        directory: The folder; it gets `images/`, `train.txt`, `val.txt`, `classes.txt` and a note
            of the seed. The lists come last: where they are, the images are.
        seed: The same seed gives the same bytes, however many workers draw them.
        num_workers: How many processes draw. Default: as many as there are cores.
        image_size: The shorter side of the images, in pixels.

    Returns:
        Whether anything had to be drawn.

    Raises:
        UserError: No domain has this name, the folder holds something else, or cannot be written.
    """
    if name not in DOMAINS:
        raise UserError(f"no toy domain is called '{name}': {did_you_mean(name, list(DOMAINS))}")
    lists = _lists(DOMAINS[name])
    note = json.dumps({"seed": seed, "image_size": image_size, "version": VERSION})
    _check_folder(name, directory, note, lists)
    if not _missing_images(name, directory) and all((directory / file).exists() for file in lists):
        return False

    def draw_missing(images: list[tuple[Path, int, int]], count_image: Callable[[], None]) -> None:
        for path, label, index in images:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                image = draw_image(name, label, index, seed, image_size)
                image.save(temporary, "JPEG", quality=88)
            count_image()

    try:
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive(directory):
            write_whole(directory / NOTE, note)
            for temporary in directory.glob("images/*/*.tmp"):  # of a run that was killed
                temporary.unlink()
            missing = _missing_images(name, directory)
            jobs = [missing[i : i + 10] for i in range(0, len(missing), 10)]
            with tqdm(total=len(missing), desc=name, unit="image") as bar:
                num_workers = num_workers or available_cores()
                run_jobs(draw_missing, jobs, num_workers=num_workers, report=bar.update)
            for file, text in lists.items():
                write_whole(directory / file, text)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or directory}: {error.strerror}; make room there or "
            "choose another --dataset_dir, then run this again"
        ) from error
    except WorkerError as error:
        raise UserError(
            f"a process drawing {name} ended early ({error}), perhaps for want of memory: run this "
            "again, it goes on where it stopped"
        ) from error
    return True


def _image_path(class_name: str, index: int) -> str:
    return f"images/{class_name}/{index:04d}.jpg"


def _missing_images(name: str, directory: Path) -> list[tuple[Path, int, int]]:
    """Path, class and index of every image that has not been drawn yet."""
    domain = DOMAINS[name]
    images = [
        (directory / _image_path(class_name, index), label, index)
        for label, (class_name, train) in enumerate(zip(domain.classes, domain.train, strict=True))
        for index in range(train + domain.val)
    ]
    return [image for image in images if not image[0].exists()]


def _lists(domain: Domain) -> dict[str, str]:
    """From the name of each list to its text."""
    train, val = [], []
    for label, (class_name, count) in enumerate(zip(domain.classes, domain.train, strict=True)):
        for index in range(count + domain.val):
            (train if index < count else val).append((_image_path(class_name, index), label))
    return {
        CLASSES: compose_class_names(domain.classes),
        "val.txt": compose_list(val),
        "train.txt": compose_list(train),
    }


def _check_folder(name: str, directory: Path, note: str, lists: dict[str, str]) -> None:
    """Raises `UserError` unless a folder is new or holds this very domain."""
    what_to_do = "move the folder away or choose another --dataset_dir"
    drawn = directory / NOTE
    if drawn.exists() and (found := drawn.read_text()) != note:
        raise UserError(
            f"{drawn} says {found.strip()}, not {note}: {what_to_do}, or keep to the flags it was "
            "drawn with"
        )
    for file, text in lists.items():
        path = directory / file
        if path.exists() and not (drawn.exists() and path.read_text() == text):
            raise UserError(f"{path} is not what is drawn for {name}: {what_to_do}")
    if (directory / "images").exists() and not drawn.exists():
        raise UserError(f"{directory / 'images'} was not drawn as {name}: {what_to_do}")
