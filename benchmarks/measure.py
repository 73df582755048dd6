"""Rates, what they are compared with, and the machine they were measured on."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from slim.common.command_line import PRECISIONS
from slim.common.workers import available_cores

THIS, PEER, LIMIT = "this project", "peer", "limit"
PACKAGES = ("tensorflow", "keras", "tf-slim", "numpy", "scipy", "scikit-learn", "POT", "pillow")


@dataclass(frozen=True)
class Settings:
    """How much is measured, and on what.

    Attributes:
        folder: Holds the photographs and their shards, and takes what is written on the way.
        photographs: Where they are from.
        num_images: How many there are.
        image_size: Height and width of the networks' images in pixels.
        batch_size: Images a batch.
        precision: What the networks' layers compute in.
        xla: Compile the networks of evaluation and extraction with XLA.
        steps: Batches a pass.
        rounds: Passes of each candidate, of whose rates the median counts.
        seconds: The least time of a round; shorter passes are repeated.
        small: Take the smaller sizes where a subject has its own.
        model_name: The network, a key of `networks.KERAS_MODELS`.
    """

    folder: Path
    photographs: str
    num_images: int
    image_size: int
    batch_size: int
    precision: str
    xla: bool
    steps: int
    rounds: int
    seconds: float
    small: bool
    model_name: str = "inception_v3"

    @property
    def batches(self) -> str:
        """The batches in words, for titles."""
        extras = [self.precision] * (self.precision != PRECISIONS[0]) + ["XLA"] * self.xla
        words = [f"images of {self.image_size}", f"batches of {self.batch_size}", *extras]
        return ", ".join(words)


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Task:
    """A candidate: one pass of something.

    Attributes:
        name: What it is, in a few words.
        role: `THIS`, `PEER` or `LIMIT`.
        run: Makes a pass, and returns how much was done in it.
        prepare: Is called before each pass, off the clock.
    """

    name: str
    role: str
    run: Callable[[], float]
    prepare: Callable[[], Any] = _nothing


@dataclass(frozen=True)
class Figure:
    """The rate of a candidate, more of which is better."""

    name: str
    role: str
    rounds: tuple[float, ...]

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    def scaled(self, factor: float) -> "Figure":
        """The same in another unit."""
        return Figure(self.name, self.role, tuple(factor * rate for rate in self.rounds))


@dataclass(frozen=True)
class Comparison:
    """Rates of the same work: the first is this project's, the others stand beside it.

    Attributes:
        title: What was measured, at which sizes.
        unit: Of all figures.
        figures: `THIS` first.
    """

    title: str
    unit: str
    figures: list[Figure]

    def times(self, figure: Figure) -> float:
        """How many times as fast as another this project is."""
        return self.figures[0].value / figure.value

    def __str__(self) -> str:
        """A table in Markdown, a row a figure."""
        this, *others = self.figures
        rows = [
            [self.title, "", self.unit, "this project is"],
            ["---", "---", "---:", "---"],
            [this.name, this.role, shown(this.value), ""],
        ]
        for figure in others:
            times = f"{shown(self.times(figure))} times as fast"
            rows.append([figure.name, figure.role, shown(figure.value), times])
        return "\n".join(row(cells) for cells in rows)

    def summary(self) -> list[str]:
        """What was measured, the project's figure, and the ratios, for one row of a table."""
        this, *others = self.figures
        ratios = [f"{shown(self.times(figure))} x {figure.name}" for figure in others]
        return [self.title, f"{shown(this.value)} {self.unit}", "; ".join(ratios)]

    def to_json(self) -> dict[str, Any]:
        """All rounds, for those who want to see the spread."""
        figures = [
            {**asdict(figure), "value": figure.value, "times": self.times(figure)}
            for figure in self.figures
        ]
        return {"title": self.title, "unit": self.unit, "figures": figures}


def alternate(
    tasks: Sequence[Task], settings: Settings, clock: Callable[[], float] = time.perf_counter
) -> list[Figure]:
    """Measures candidates in turn, so that what else the machine does falls on all alike.

    Args:
        tasks: The candidates. A first pass of each is not counted.
        settings: Rounds, and how long each is at least.
        clock: Seconds that pass, or that the processor works.

    Returns:
        A figure each, what is done in a second.
    """
    for task in tasks:
        task.prepare()
        task.run()
    rounds = [
        [_rate(task, settings.seconds, clock) for task in tasks] for _ in range(settings.rounds)
    ]
    return [
        Figure(task.name, task.role, rates)
        for task, rates in zip(tasks, zip(*rounds, strict=True), strict=True)
    ]


def _rate(task: Task, seconds: float, clock: Callable[[], float]) -> float:
    done = elapsed = 0.0
    while elapsed == 0 or elapsed < seconds:
        task.prepare()
        started = clock()
        done += task.run()
        elapsed += clock() - started
    return done / elapsed


def shown(value: float) -> str:
    """A number with three digits that count, or all before the decimal point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def describe_machine() -> dict[str, Any]:
    """What figures depend on beside the code: processor, memory, GPUs, versions."""
    from slim.common.compat import tf  # three seconds that other callers need not wait for

    details = tf.config.experimental.get_device_details
    return {
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": [
            details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "system": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
