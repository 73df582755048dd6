"""Measures the speed of the project against peers and limits in the same run.

`python -m benchmarks` prints one table per subject and a summary; `--quick` takes less than three
minutes on two cores. Figures are rates per second: more is better.
"""

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.measure import Comparison, Settings, machine_properties
from benchmarks.photographs import draw_photographs, find_photographs, make_dataset
from benchmarks.processes import in_fresh_process, measure_subject
from slim.common.command_line import FlagSet, check_words, define_speed_flags, run_command
from slim.common.errors import UserError
from slim.common.files import write_whole
from slim.common.tables import Table

SUBJECTS = (
    "conversion",
    "training_input",
    "training_step",
    "evaluation",
    "feature_extraction",
    "similarity",
    "linear_classifier",
)
FULL = {"num_images": 2000, "batch_size": 16, "steps": 8, "rounds": 3, "seconds": 2.0}
QUICK = {"num_images": 400, "batch_size": 8, "steps": 2, "rounds": 2, "seconds": 0.5}
GPU_BATCH_SIZE = 128


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the command."""
    define = FlagSet(values)
    define.boolean("quick", False, "Measure less: shorter passes, smaller batches.")
    define.words("subjects", SUBJECTS, "Subjects to measure, comma-separated.")
    define.string("images", None, "A folder of photographs. Default: drawn ones.")
    define.integer("num_images", None, "Photographs in the dataset. Default: 2,000; quick: 400.", 2)
    define.integer("image_size", 299, "Height and width of the networks' images in pixels.", 75)
    define.integer("batch_size", None, "Images per batch. Default: 16; quick: 8; on a GPU: 128.", 1)
    define_speed_flags(define)
    define.integer("rounds", None, "Times to measure each candidate. Default: 3; quick: 2.", 1)
    define.string("json", None, "A file to write all figures to. Default: none.")


def main(values: flags.FlagValues) -> None:
    """Measures the subjects in turn and prints their tables."""
    check_words("subjects", values.subjects, SUBJECTS)
    started = time.monotonic()
    machine = in_fresh_process(machine_properties)
    print(machine_line(machine), flush=True)
    measured: dict[str, tuple[str, list[Comparison]]] = {}
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        settings = prepare(values, Path(scratch), bool(machine["gpus"]))

        def save() -> None:
            if values.json:
                path = Path(values.json)
                write_json(path, machine, settings, measured=measured, failed=failed)

        save()  # checks the path
        for number, name in enumerate(values.subjects, start=1):
            print(f"{name}: {number} of {len(values.subjects)}", file=sys.stderr, flush=True)
            try:
                measured[name] = in_fresh_process(measure_subject, name, settings)
            except Exception as error:
                report_failure(name, error)
                failed.append(name)
            else:
                print_tables(*measured[name])
            save()
    print_summary(measured)
    print(f"\nmeasured in {time.monotonic() - started:.0f} s")
    if failed:
        raise UserError(f"not measured: {', '.join(failed)}; see the errors above")


def prepare(values: flags.FlagValues, scratch: Path, has_gpu: bool) -> Settings:
    """Makes the photographs and their shards, and returns the settings.

    Raises:
        UserError: The given photographs cannot be used.
    """
    sizes = QUICK if values.quick else FULL
    count = values.num_images or sizes["num_images"]
    if values.images:
        photographs = find_photographs(Path(values.images), count)
    else:
        photographs = draw_photographs(scratch / "drawn", count)
    make_dataset(scratch, photographs, count)
    batch_size = GPU_BATCH_SIZE if has_gpu else sizes["batch_size"]
    return Settings(
        folder=scratch,
        photographs=values.images or "drawn",
        num_images=count,
        image_size=values.image_size,
        batch_size=values.batch_size or batch_size,
        precision=values.precision,
        xla=values.xla,
        steps=sizes["steps"],
        rounds=values.rounds or sizes["rounds"],
        seconds=sizes["seconds"],
        small=values.quick,
    )


def machine_line(machine: dict[str, Any]) -> str:
    """Returns the machine as a line of text."""
    versions = machine["versions"]
    parts = [
        machine["cpu"],
        f"{machine['cores']} cores",
        f"{machine['memory_gb']:.0f} GB",
        *machine["gpus"],
        f"Python {versions['python']}",
        f"TensorFlow {versions['tensorflow']}",
    ]
    return ", ".join(parts)


def report_failure(name: str, error: Exception) -> None:
    """Prints the reason why a subject could not be measured; a bug keeps its traceback."""
    if not isinstance(error, UserError):
        traceback.print_exception(error)
    print(f"{name} could not be measured: {error}", file=sys.stderr, flush=True)


def print_tables(heading: str, comparisons: Sequence[Comparison]) -> None:
    """Prints the tables of a subject."""
    print(f"\n## {heading}")
    for comparison in comparisons:
        print(f"\n{comparison}", flush=True)


def print_summary(measured: dict[str, tuple[str, list[Comparison]]]) -> None:
    """Prints a table of all subjects with one row per comparison."""
    print("\n## Summary\n")
    rows = [
        [name.replace("_", " "), *comparison.summary()]
        for name, (_, comparisons) in measured.items()
        for comparison in comparisons
    ]
    print(Table(["subject", "measured", "this project", "compared with"], rows))


def write_json(
    path: Path,
    machine: dict[str, Any],
    settings: Settings,
    *,
    measured: dict[str, tuple[str, list[Comparison]]],
    failed: Sequence[str],
) -> None:
    """Writes the machine, the settings and all figures so far.

    Raises:
        UserError: The file cannot be written.
    """
    content = {
        "machine": machine,
        "settings": {k: v for k, v in asdict(settings).items() if k != "folder"},
        "subjects": {
            name: {"heading": heading, "comparisons": [c.to_json() for c in comparisons]}
            for name, (heading, comparisons) in measured.items()
        },
        "failed": list(failed),
    }
    try:
        write_whole(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"--json={path}: {error.strerror}; give a file in an existing folder"
        ) from error


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
