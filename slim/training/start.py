"""What a training run begins from: its folder, its first and last step, its first values."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from absl import flags

from slim.checkpoints.description import (
    RENAMED,
    ModelDescription,
    find_other_class,
    has_names,
    read_model_description,
    shift_names,
)
from slim.checkpoints.finding import DONE, find_checkpoint, latest_checkpoint, repair_state
from slim.checkpoints.reading import by_name, check_fits, read_shapes, read_step
from slim.common.compat import slim, tf
from slim.common.errors import UserError, count, warn
from slim.common.files import make_folder, write_whole, writing_to
from slim.datasets.input import Dataset, number_of_classes
from slim.deployment.cluster import Cluster, join


@dataclass(kw_only=True)
class Run:
    """The part of this process in a run."""

    cluster: Cluster
    train_dir: Path  # receives checkpoints and event files; only the chief writes to it
    last_step: int | None  # None to run until stopped
    is_complete: bool = False  # nothing is left to do
    source: str | None = None  # the checkpoint that a new run fine-tunes from
    target: str = ""  # of sessions; empty on one machine

    @property
    def latest_checkpoint(self) -> str | None:
        """The prefix of the latest checkpoint in `train_dir`."""
        return latest_checkpoint(self.train_dir)

    def ends_at(self, step: int) -> bool:
        return self.last_step is not None and step >= self.last_step


def find_last_step(
    max_number_of_steps: int | None,
    max_number_of_epochs: float | None,
    num_samples: int,
    images_per_step: int,
) -> int | None:
    """Returns the step that completes the steps or the epochs, whichever is first."""
    if max_number_of_epochs is None:
        return max_number_of_steps
    # 1.1 epochs of 50 images are 55 images, not 55.00000000000001.
    images = Fraction(str(max_number_of_epochs)) * num_samples
    return min(max_number_of_steps or math.inf, math.ceil(images / images_per_step))


@contextmanager
def take_part(
    cluster: Cluster, train_dir: Path, last_step: int | None, checkpoint_path: str | None
) -> Iterator[Run]:
    """Locks the folder of a run, says whether it resumes or is complete, and joins the cluster."""
    run, step = Run(cluster=cluster, train_dir=train_dir, last_step=last_step), 0
    with ExitStack() as stack:
        if cluster.is_chief:
            if checkpoint_path and run.latest_checkpoint is None:
                run.source = find_checkpoint(checkpoint_path)
            make_folder(train_dir, "train_dir")
            stack.enter_context(writing_to(train_dir, "train_dir", seconds=0))
            for leftover in train_dir.glob("model.ckpt-*.tempstate*"):
                leftover.unlink()  # of a run that was killed
            (train_dir / DONE).unlink(missing_ok=True)
            repair_state(train_dir)
            if latest := run.latest_checkpoint:
                step = read_step(latest)
                if run.ends_at(step):
                    print(
                        f"nothing to do: {latest} is at step {step} of {last_step}; to continue, "
                        "pass a larger --max_number_of_steps or --max_number_of_epochs; to start "
                        "over, another --train_dir"
                    )
                else:
                    print(f"resuming from step {step} ({latest})", flush=True)
        # The other processes of a cluster learn from the variables that the run is complete.
        run.is_complete = cluster.is_alone and run.ends_at(step)
        if not run.is_complete:
            run.target = stack.enter_context(join(cluster))
        yield run
        # Evaluation beside training may end with it.
        latest = run.latest_checkpoint if cluster.is_chief else None
        if latest and run.ends_at(read_step(latest)):
            write_whole(train_dir / DONE, f"{Path(latest).name}\n")


def describe_model(values: flags.FlagValues, dataset: Dataset) -> ModelDescription:
    """Describes the network of a run; a run is not resumed on other classes than before."""
    offset, names = values.labels_offset, dataset.class_names
    number_of_classes(dataset.num_classes, offset)  # checks the offset
    shifted = shift_names(names or [*map(str, range(dataset.num_classes))], offset)
    preprocessing = values.preprocessing_name or values.model_name
    network = values.model_name, values.train_image_size, preprocessing
    data = dataset.name, shifted, dataset.apply_orientation, offset
    model = ModelDescription(*network, *data)
    if latest := latest_checkpoint(values.train_dir):
        before = read_model_description(Path(values.train_dir))
        same = before and before.dataset_name == dataset.name and not names
        if same and len(before.class_names) == len(shifted):  # classes.txt has been removed
            return replace(model, class_names=before.class_names)
        to_do = f"to train on these classes, pass another --train_dir; {RENAMED}"
        problem = _find_other_class(latest, model, to_do)
        if problem and not values.renamed_classes:
            raise UserError(problem)
    return model


def _find_other_class(checkpoint: str, model: ModelDescription, to_do: str) -> str | None:
    names, offset = model.class_names, model.labels_offset
    return find_other_class(
        checkpoint, model.dataset_name, names, labels_offset=offset, to_do=to_do
    )


def first_values(
    run: Run,
    values: flags.FlagValues,
    averages: Sequence[tuple[tf.Variable, tf.Variable]],
    model: ModelDescription,
) -> Callable[[tf.Session], None]:
    """Checks the checkpoint that a run begins from, which has to fit the variables of the graph.

    Returns the function that sets the variables of a session that does not resume, after their
    initializers. `averages` are model variables with their moving averages. A warning says that a
    restored classifier was trained on other classes than those of `model`.
    """
    restore = None
    # 1. The run resumes, and its session restores everything.
    if latest := run.latest_checkpoint:
        if values.checkpoint_path:
            print(
                f"ignoring --checkpoint_path={values.checkpoint_path}: {run.train_dir} has a "
                "checkpoint"
            )
        hint = (
            f"{run.train_dir} belongs to a run with another network, dataset or optimizer: pass "
            "another --train_dir, or the flags of that run"
        )
        check_fits(latest, by_name(tf.global_variables()), hint, hint)
    # 2. The run fine-tunes: the model variables, except those that are excluded.
    elif run.source:
        excluded = split_scopes(values.checkpoint_exclude_scopes)
        variables = by_name(slim.get_model_variables())
        wanted = {n: v for n, v in variables.items() if not any(scope in n for scope in excluded)}
        if values.ignore_missing_vars:
            stored = read_shapes(run.source)
            wanted = {name: variable for name, variable in wanted.items() if name in stored}
        check_fits(
            run.source,
            wanted,
            "does it match --model_name? Skip the variables with --checkpoint_exclude_scopes or "
            "--ignore_missing_vars",
            "skip the classifier of other classes with --checkpoint_exclude_scopes="
            + classifier_scope(),
        )
        others = variables.keys() - wanted.keys()
        left_out = f", {len(others)} left out: {', '.join(_scopes(others))}" if others else ""
        print(f"fine-tuning from {run.source}: {count(len(wanted), 'variable')}{left_out}")
        classifier = {name for name in variables if f"/{classifier_scope()}/" in name}
        kept = [scope for scope in excluded if not any(scope in name for name in classifier)]
        before = read_model_description(Path(run.source).parent)
        # Numbers stand for the same classes within a dataset only.
        known = before and (
            has_names(before.class_names) or before.dataset_name == model.dataset_name
        )
        if classifier & wanted.keys():
            to_do = f"--checkpoint_exclude_scopes={classifier_scope()} skips its classifier"
            problem = _find_other_class(run.source, model, f"{to_do}; {RENAMED}")
            if problem and not values.renamed_classes:
                warn(problem)
        elif kept != excluded and known and before.class_names == model.class_names:
            flag = f"--checkpoint_exclude_scopes={','.join(kept)}"
            print(f"its classifier has the same classes; to keep it, pass {flag}")
        restore = tf.train.Saver(wanted)
    # 3. Moving averages begin at the values of their variables.
    begin_averages = tf.group(*[average.assign(variable) for variable, average in averages])

    def set_variables(session: tf.Session) -> None:
        if restore is not None:
            restore.restore(session, run.source)
        session.run(begin_averages)

    return set_variables


def split_scopes(scopes: str | None) -> list[str]:
    return [scope.strip() for scope in (scopes or "").split(",") if scope.strip()]


def classifier_scope() -> str:
    """Returns the scope that is only in the variable names of the classifier of the graph."""
    names = [variable.op.name for variable in tf.trainable_variables()]
    return "logits" if any("/logits/" in name for name in names) else "Logits"  # ResNets


def _scopes(names: Iterable[str]) -> list[str]:
    return sorted({"/".join(name.split("/")[:2]) for name in names})


def variables_to_train(trainable_scopes: str | None) -> list[tf.Variable]:
    """Returns the trainable variables whose name contains a scope; without scopes, all."""
    trainable, scopes = tf.trainable_variables(), split_scopes(trainable_scopes) or [""]
    chosen = [v for v in trainable if any(scope in v.op.name for scope in scopes)]
    if not chosen:
        known = _scopes(v.op.name for v in trainable)
        raise UserError(
            f"--trainable_scopes={trainable_scopes} matches no variable; scopes of the network: "
            + ", ".join(known)
        )
    return chosen


def frozen_variables(values: flags.FlagValues) -> Callable[[str], bool] | None:
    """Returns the function that tells by name which variables --freeze_batch_norm freezes."""
    scopes = split_scopes(values.trainable_scopes)
    if not (values.freeze_batch_norm and scopes):
        if values.freeze_batch_norm:
            warn("--freeze_batch_norm changes nothing: without --trainable_scopes, all are trained")
        return None
    return lambda name: not any(scope in name for scope in scopes)
