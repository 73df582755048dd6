"""Training the last layer on features that are computed once rather than in every epoch.

If images are not distorted and only the last layer is trained, the features of an image are the
same in every epoch. The features are those of feature extraction, where batch norm uses the
averages of the checkpoint; training on images normalizes by each batch instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from slim.checkpoints.finding import find_checkpoint, latest_checkpoint
from slim.checkpoints.reading import by_name, read_shapes, read_tensors
from slim.common.compat import slim, tf
from slim.common.errors import UserError, count
from slim.common.files import writing_to
from slim.datasets.input import Dataset
from slim.datasets.tfrecord import LISTS
from slim.deployment.cluster import Cluster
from slim.features.extractor import Extractor, load_network
from slim.features.feature_files import Settings, extract_missing, find_split, hash_checkpoint
from slim.nets.nets_factory import get_network
from slim.training.batches import CloneOutputs, NetworkFn
from slim.training.start import Run, classifier_scope, split_scopes

FEATURES = "features"  # the end point that is fed, and the folder in --train_dir


def check_cache_flags(values: flags.FlagValues, cluster: Cluster) -> None:
    """Refuses flags that cannot be combined with `--cache_features`, and clusters."""
    if cluster.master or not cluster.is_alone:
        raise UserError(
            "--cache_features: one layer is too small for several machines; omit --worker_hosts, "
            "--ps_hosts and --master, and unset TF_CONFIG"
        )
    for flag, expected, reason in (
        ("augment", False, "distorted images have different features every time"),
        ("preprocessing_name", None, "images are preprocessed as for feature extraction"),
        ("num_clones", 1, "one layer is too small for several GPUs"),
    ):
        if values[flag].value != expected:
            to_do = "pass --noaugment" if flag == "augment" else f"omit --{flag}"
            raise UserError(f"--cache_features: {reason}; {to_do}")
    if not values.checkpoint_path:
        raise UserError(
            "--cache_features: --checkpoint_path is missing, the checkpoint to compute features "
            "from"
        )


class FeatureBatches:
    """Batches of cached features of the images in a list; with the methods of `ImageBatches`."""

    # The meta optimizer would rewrite the neighbourhood of the fed tensor and require images.
    session_options = tf.ConfigProto()
    session_options.graph_options.rewrite_options.disable_meta_optimizer = True

    def __init__(
        self, values: flags.FlagValues, dataset: Dataset, num_classes: int, run: Run
    ) -> None:
        self._values = values
        self._dataset = dataset
        self._num_classes = num_classes
        # A folder may get newer checkpoints while features are computed.
        self._checkpoint = run.source or find_checkpoint(values.checkpoint_path)

    def build(self, network_fn: NetworkFn) -> CloneOutputs:
        """Builds a network of which only the layers above the features run.

        The auxiliary classifier is below: it has its variables but no loss.
        """
        # Its shapes depend on the size of the images, which do not run.
        size = self._values.train_image_size
        logits, end_points = network_fn(tf.placeholder(tf.float32, [None, size, size, 3]))
        features = end_points[get_network(self._values.model_name).feature_endpoint]
        if features.shape[1:3] != (1, 1):
            features = features.consumers()[0].outputs[0]  # their mean over positions
        labels = tf.placeholder(tf.int64, [None])
        return CloneOutputs(labels, logits, {FEATURES: features}, tf.constant(0, tf.float64))

    def compute(
        self, outputs: CloneOutputs, trained: Sequence[tf.Variable]
    ) -> Sequence[tf.Variable]:
        """Computes or loads the features of the split, and returns the variables to train.

        The auxiliary classifier, which has no loss, keeps the values that it started from.
        """
        values, dataset = self._values, self._dataset
        self._check_variables(outputs.end_points[FEATURES], trained)
        folder, list_name = Path(values.train_dir, FEATURES), LISTS[dataset.split_name]
        split = find_split(dataset.name, Path(list_name).stem, values.dataset_dir, folder)
        for entry in split.image_list.entries:
            if not 0 <= entry.label - values.labels_offset < self._num_classes:
                raise UserError(
                    f"{split.folder / list_name} line {entry.line}: label {entry.label} is out of "
                    f"range with --labels_offset={values.labels_offset}, the network has "
                    f"{self._num_classes} classes (0 to {self._num_classes - 1}); correct the "
                    "offset"
                )
        settings = Settings(
            model_name=values.model_name,
            checkpoint_hash=hash_checkpoint(self._checkpoint),
            averages=False,
            endpoint=get_network(values.model_name).feature_endpoint,
            image_size=values.train_image_size,
            precision=values.precision,
        )

        def make_extractor() -> Extractor:
            network = load_network(settings, self._checkpoint)
            return Extractor(network, settings, values.batch_size)

        with writing_to(folder, "train_dir"):
            extract_missing([split], settings, make_extractor)
            self._features = np.load(split.feature_path, mmap_mode="r")
            self._labels = np.load(split.label_path) - values.labels_offset
        return [variable for variable in trained if "/AuxLogits/" not in variable.op.name]

    def begin(
        self, _: tf.Session, step: int, outputs: CloneOutputs
    ) -> Iterator[Mapping[tf.Tensor, np.ndarray]]:
        """Yields the features and labels to feed to each step, from a step on."""
        seed = None if self._values.seed is None else self._values.seed + step
        batches = feature_batches(self._features, self._labels, self._values.batch_size, seed)
        for rows, labels in batches:
            features = rows[:, np.newaxis, np.newaxis]
            yield {outputs.end_points[FEATURES]: features, outputs.labels: labels}

    def _check_variables(self, features: tf.Tensor, trained: Sequence[tf.Variable]) -> None:
        """Checks that cached features are, and stay, the features of the trained network.

        Variables below the last layer must not be trained, have to be restored from the checkpoint,
        and must not have other values in the checkpoint that the run resumes from.
        """
        found, to_visit = set(), [features.op]
        while to_visit:
            operation = to_visit.pop()
            if operation not in found:
                found.add(operation)
                to_visit += [tensor.op for tensor in operation.inputs]
        below = [variable.op.name for variable in trained if variable.op in found]
        if all("/AuxLogits/" in variable.op.name for variable in trained):
            below = [variable.op.name for variable in trained]
        if below:
            raise UserError(
                f"--cache_features: --trainable_scopes selects {count(len(below), 'variable')} "
                f"below the last layer, such as {below[0]}; pass "
                f"--trainable_scopes={classifier_scope()}, or omit --cache_features"
            )
        kept = by_name([v for v in slim.get_model_variables() if v not in trained])
        scopes = split_scopes(self._values.checkpoint_exclude_scopes)
        excluded = [name for name in kept if any(scope in name for scope in scopes)]
        if below := [name for name in excluded if kept[name].op in found]:
            raise UserError(
                "--cache_features: --checkpoint_exclude_scopes selects "
                f"{count(len(below), 'variable')} below the last layer, such as {below[0]}; "
                "pass the scopes of the last layer only"
            )
        if latest := latest_checkpoint(self._values.train_dir):
            started = read_shapes(self._checkpoint).keys() & (kept.keys() - set(excluded))
            before = read_tensors(self._checkpoint, sorted(started))
            after = read_tensors(latest, sorted(started & read_shapes(latest).keys()))
            different = [
                name for name in before if not np.array_equal(before[name], after.get(name))
            ]
            if different:
                raise UserError(
                    f"--cache_features: {self._values.train_dir} has a run that did not start from "
                    f"--checkpoint_path={self._checkpoint}: {count(len(different), 'variable')} "
                    f"changed, such as {different[0]}; pass the checkpoint that it started from, "
                    "or another --train_dir"
                )


def feature_batches(
    features: np.ndarray, labels: np.ndarray, batch_size: int, seed: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields endless batches of shuffled epochs, each with every image once.

    The last batch of an epoch is completed from the next epoch. Without a seed, the order is
    different in every run.
    """
    random = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    while True:
        while len(order) < batch_size:
            order = np.concatenate([order, random.permutation(len(labels))])
        chosen, order = order[:batch_size], order[batch_size:]
        yield features[chosen], labels[chosen]
