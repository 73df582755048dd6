"""The nine official archives: their addresses, hashes and sizes, and downloads of them.

The hashes are published by iNaturalist and CaltechDATA, or are those by which TensorFlow Datasets
(sha256) and torchvision and others (md5) check the same addresses.
"""

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from slim.common.command_line import python_command
from slim.common.downloads import fetch
from slim.common.errors import UserError, warn
from slim.common.files import exclusive, make_folder
from slim.common.unpacking import refuse_existing, unpack, unpacked


@dataclass(frozen=True)
class RemoteFile:
    """A file to download."""

    address: str
    known_hash: str  # `sha256:...` or `md5:...`
    size: int  # in bytes, for messages
    top: str | None = None  # a file or folder at its top; None if the file is not an archive
    into: str = "."  # the subfolder to unpack it into

    @property
    def name(self) -> str:
        return Path(urlsplit(self.address).path).name

    def fetch(self, path: Path) -> None:
        """Downloads the file; if a file exists, checks it and leaves it as it is."""
        fetch(self.address, path, self.known_hash)


@dataclass(frozen=True)
class ArchiveSource:
    """The origin of a dataset."""

    page: str
    files: tuple[RemoteFile, ...] = ()  # downloads without a login
    by_hand: str = ""  # instructions, if there are no such files


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_DOGS = "http://vision.stanford.edu/aditya86/ImageNetDogs"
_INAT = "https://ml-inat-competition-datasets.s3.amazonaws.com/2017"

# fmt: off
SOURCES = {
    "cub_200": ArchiveSource("https://www.vision.caltech.edu/datasets/cub_200_2011/", (
        RemoteFile("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                   "md5:97eceeb196236b17998738112f37df78", 1_150_585_339, "CUB_200_2011"),
    )),
    "aircraft": ArchiveSource(f"{_OXFORD}/fgvc-aircraft/", (
        RemoteFile(f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                   "md5:d4acdd33327262359767eeaa97a4f732", 2_753_340_328, "fgvc-aircraft-2013b"),
    )),
    "flower_102": ArchiveSource(f"{_OXFORD}/flowers/102/", (
        RemoteFile(f"{_OXFORD}/flowers/102/102flowers.tgz",
                   "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
                   344_862_509, "jpg"),
        RemoteFile(f"{_OXFORD}/flowers/102/imagelabels.mat",
                   "sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d", 502),
        RemoteFile(f"{_OXFORD}/flowers/102/setid.mat",
                   "sha256:46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
                   14_989),
    )),
    "food_101": ArchiveSource("https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", (
        RemoteFile("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                   "sha256:d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
                   4_996_278_331, "food-101"),
    )),
    "nabirds": ArchiveSource(
        "https://dl.allaboutbirds.org/nabirds",
        by_hand="accept the terms there and unpack the archive; "
        "--archive_dir must contain nabirds/",
    ),
    "stanford_cars": ArchiveSource(
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        by_hand="that page is gone, https://github.com/pytorch/vision/issues/7545 links to copies; "
        "--archive_dir must contain car_ims/ and cars_annos.mat, or cars_train/, cars_test/ and "
        "devkit/ with cars_train_annos.mat and cars_test_annos_withlabels.mat",
    ),
    "stanford_dogs": ArchiveSource(f"{_DOGS}/", (
        RemoteFile(f"{_DOGS}/images.tar",
                   "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
                   793_579_520, "Images"),
        RemoteFile(f"{_DOGS}/lists.tar",
                   "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
                   481_280, "train_list.mat", into="lists"),
    )),
    "ILSVRC2012": ArchiveSource(
        "https://image-net.org/download.php",
        by_hand="register there and unpack into --archive_dir: ILSVRC2012_devkit_t12.tar.gz, "
        "ILSVRC2012_img_val.tar into val/, and every archive in ILSVRC2012_img_train.tar into "
        "train/<wnid>/; or unpack the archive of Kaggle there",
    ),
    "inat2017": ArchiveSource("https://github.com/visipedia/inat_comp/tree/master/2017", (
        RemoteFile(f"{_INAT}/train_val2017.zip",
                   "md5:444c835f6459867ad69fcb36478786e7", 26_836_398, "train2017.json"),
        RemoteFile(f"{_INAT}/train_val_images.tar.gz",
                   "md5:7c784ea5e424efaec655bd392f87301f", 198_765_436_676, "train_val_images"),
    )),
}
# fmt: on

# The images that validate iNaturalist 2017 in the paper.
MINIVAL = RemoteFile(
    "https://raw.githubusercontent.com/richardaecn/cvpr18-inaturalist-transfer/HEAD/"
    "inat_minival.txt",
    "sha256:35cf431f20792f43e43be77aca5538aac84228cf2d2f09c285ea0a7b117f53ce",
    784_530,
)


def download(name: str, folder: Path) -> None:
    """Downloads and unpacks the archives of a dataset; resumes an interrupted call.

    An archive, of up to 199 GB, is removed after it is unpacked; there must be room for both. A
    hidden file in the folder marks it as unpacked, so that another call skips it.
    """
    if not SOURCES[name].files:
        raise UserError(f"{name} cannot be downloaded automatically: {where_to_get(name)}")
    make_folder(folder, "archive_dir")
    with exclusive(folder):
        for file in SOURCES[name].files:
            path, into = folder / file.name, folder / file.into
            # Some files are not archives, and an archive may have been unpacked before.
            if file.top is None:
                file.fetch(path)
                continue
            if not unpacked(path, into):
                refuse_existing(into / file.top, file.name)
                file.fetch(path)
                unpack(path, into)
            path.unlink(missing_ok=True)


def where_to_get(name: str) -> str:
    """Returns a clause that says where the archive of a dataset comes from, for errors."""
    source = SOURCES[name]
    if source.by_hand:
        return f"it comes from {source.page}; {source.by_hand}"
    size = tqdm.format_sizeof(sum(file.size for file in source.files))
    return f"it comes from {source.page}; --download fetches it ({size}B)"


def read_minival(path: Path, *, allow_other: bool = False) -> frozenset[str]:
    """Reads names of images, such as `train_val_images/Aves/Corvus cornix/....jpg`."""
    to = shlex.quote(f"--path={path}")
    remedy = f"{python_command()} -m slim.datasets.minival {to} fetches it"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: {remedy}") from error
    found = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if found != MINIVAL.known_hash:
        problem = f"{path} is not the published list: {found}, expected {MINIVAL.known_hash}"
        if not allow_other:
            raise UserError(f"{problem}: move it away; then {remedy}")
        warn(problem)
    return frozenset(content.decode(errors="surrogateescape").splitlines())
