"""Models and archives to fetch: those of the authors on Google Drive, TF-Slim's, and others."""

from dataclasses import dataclass

from slim.common.errors import UserError, did_you_mean

ADDRESS = "https://drive.google.com/uc?id={id}"
BROWSER = "https://drive.google.com/open?id={id}"  # for browsers
TF_SLIM_ADDRESS = "http://download.tensorflow.org/models/{name}.tar.gz"


@dataclass(frozen=True)
class ReleasedModel:
    """A model in an archive."""

    name: str  # the published one; the file in the archive may have another
    network: str  # a value of --model_name
    trained_on: str  # a key of CLASSES
    sizes: tuple[int, ...]  # successive heights and widths of its training images, in pixels

    @property
    def kind(self) -> str:
        """The published folder in `checkpoints/`."""
        return self.name.partition("_")[0]


IMAGENET, INAT, BOTH = "ImageNet", "iNat2017", "ImageNet + iNat2017"
# The union has the classes of both; the larger numbers include a background class.
CLASSES = {IMAGENET: (1000, 1001), INAT: (5089,), BOTH: (6089, 6090)}
MODELS = (
    ReleasedModel("inception_v3_ILSVRC_299", "inception_v3", IMAGENET, (299,)),
    ReleasedModel("inception_v3_iNat_299", "inception_v3", INAT, (299,)),
    ReleasedModel("inception_v3_iNat_448", "inception_v3", INAT, (448,)),
    ReleasedModel("inception_v3_iNat_560_ft", "inception_v3", INAT, (299, 560)),
    ReleasedModel("inception_v3_ILSVRC_iNat_299", "inception_v3", BOTH, (299,)),
    ReleasedModel("inception_v3_se_ILSVRC_iNat_299", "inception_v3_se", BOTH, (299,)),
    ReleasedModel("inception_v4_iNat_448", "inception_v4", INAT, (448,)),
    ReleasedModel("inception_v4_iNat_560_ft", "inception_v4", INAT, (448, 560)),
    ReleasedModel("inception_resnet_v2_ILSVRC_iNat_299", "inception_resnet_v2", BOTH, (299,)),
    ReleasedModel("inception_resnet_v2_se_ILSVRC_iNat_299", "inception_resnet_v2_se", BOTH, (299,)),
    ReleasedModel("resnet_50_ILSVRC_iNat_299", "resnet_v2_50", BOTH, (299,)),
    ReleasedModel("resnet_101_ILSVRC_iNat_299", "resnet_v2_101", BOTH, (299,)),
    ReleasedModel("resnet_152_ILSVRC_iNat_299", "resnet_v2_152", BOTH, (299,)),
    # TF-Slim's, with a background class.
    ReleasedModel("inception_v3_2016_08_28", "inception_v3", IMAGENET, (299,)),
    ReleasedModel("inception_v4_2016_09_09", "inception_v4", IMAGENET, (299,)),
    ReleasedModel("inception_resnet_v2_2016_08_30", "inception_resnet_v2", IMAGENET, (299,)),
    ReleasedModel("resnet_v2_50_2017_04_14", "resnet_v2_50", IMAGENET, (299,)),
    ReleasedModel("resnet_v2_101_2017_04_14", "resnet_v2_101", IMAGENET, (299,)),
    ReleasedModel("resnet_v2_152_2017_04_14", "resnet_v2_152", IMAGENET, (299,)),
)
# Networks without classifier in SavedModels, by name: the network, the data, the size of its images
# and the address of an archive.
HUB_MODELS = {
    "inaturalist_inception_v3": (
        "inception_v3",
        INAT,
        299,
        "https://tfhub.dev/google/inaturalist/inception_v3/feature_vector/5"
        "?tf-hub-format=compressed",
    )
}
KERAS, HUB = "keras", "hub"  # folders, and prefixes of names on the command line
CONVERTED = "model.ckpt-0"  # the checkpoint of a converted model
DATA, FEATURES = "data", "feature"  # the folders that the other two archives fill, as published
DRIVE_IDS = {
    "inception_v3_ILSVRC_299": "1Djydji-QnJOQ93dWYw-4yVLSP4-TAXHy",
    "inception_v3_iNat_299": "1g3bsmBrKPRbah4EDNnC_IgDk8N4uAZaY",
    "inception_v3_iNat_448": "1RWr2I1mOV6l5VNIZrIhwnAMtggfMaeMf",
    "inception_v3_iNat_560_ft": "1ocJALCYcsM6Ym2DWV-B6GYmUHVshd8lF",
    "inception_v3_ILSVRC_iNat_299": "1EUNR4o77lNt0fN5Bi4lKxTZnFhghILRw",
    "inception_v3_se_ILSVRC_iNat_299": "11T9ogOdoG0Qu2rBNKQ1hNcHq3rAQ1F-Q",
    "inception_v4_iNat_448": "1zV0n1qAQ9rDoNMHvRP488mes018BOqs0",
    "inception_v4_iNat_560_ft": "13IkVGfjxQKMpN6OFHpqLoIiM92FMJ-o8",
    "inception_resnet_v2_ILSVRC_iNat_299": "1l-7ZidrlG8UeS8E21tcWzke5JmaTR7mF",
    "inception_resnet_v2_se_ILSVRC_iNat_299": "1XvF8rDCJEeOMowy6JlRaNDOUD51KajpR",
    "resnet_50_ILSVRC_iNat_299": "1F9e5kFhwthf-h7CSMKW3aatPcRY0o4qs",
    "resnet_101_ILSVRC_iNat_299": "1eoOfsMRdgrLxkoEw0e3Za0aPvSBzkCE2",
    "resnet_152_ILSVRC_iNat_299": "1VvMGQIDNsxs1H9lnfTWXiikbcF1EOQ7N",
    DATA: "1-FJlSj0Qa8pYvp_5PbMKw4piu7Qt5qfE",
    FEATURES: "1vOHKuqt7XgROo9t5cblJvGf0kGpiFaF1",
}


def get_model(name: str) -> ReleasedModel:
    """Returns a model by name, or refuses an unknown one."""
    models = {model.name: model for model in MODELS}
    if name not in models:
        raise UserError(f"unknown model '{name}'; {did_you_mean(name, list(models))}")
    return models[name]


def background_offset(trained_on: str, num_classes: int) -> int:
    """Returns the `labels_offset` of a model: -1 if it has a background class."""
    return -1 if num_classes in CLASSES[trained_on][1:] else 0


def published_address(name: str) -> str:
    """Returns the address of an archive, for a browser if it is on Google Drive."""
    if name in DRIVE_IDS:
        return BROWSER.format(id=DRIVE_IDS[name])
    if name in HUB_MODELS:
        return HUB_MODELS[name][3]
    return TF_SLIM_ADDRESS.replace("{name}", name)
