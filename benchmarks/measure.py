"""Rates, their comparison, and the machine."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from slim.common.command_line import PRECISIONS, available_cores
from slim.common.tables import Table

THIS, PEER, LIMIT = "this project", "peer", "limit"
PACKAGES = ("tensorflow", "keras", "tf-slim", "numpy", "scipy", "scikit-learn", "POT", "pillow")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a measurement.

    Attributes:
        folder: Holds the photographs, their shards and temporary files.
        photographs: The origin of the photographs.
        num_images: Number of photographs.
        image_size: Height and width of the input of networks in pixels.
        batch_size: Images per batch.
        precision: The type the layers compute in.
        xla: Whether networks are compiled with XLA; in training on GPUs only.
        steps: Batches per pass.
        rounds: Passes of each candidate, whose median rate counts.
        seconds: Minimum time of a round; shorter passes are repeated.
        small: Whether subjects with sizes of their own take the smaller ones.
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
        """The batches as text, for titles."""
        extras = [self.precision] * (self.precision != PRECISIONS[0]) + ["XLA"] * self.xla
        words = [f"images of {self.image_size}", f"batches of {self.batch_size}", *extras]
        return ", ".join(words)


@dataclass(frozen=True)
class Task:
    """A candidate.

    Attributes:
        name: The name, for tables.
        role: `THIS`, `PEER` or `LIMIT`.
        run: Runs a pass and returns the amount of work.
        prepare: Runs before each pass, not timed.
    """

    name: str
    role: str
    run: Callable[[], float]
    prepare: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Figure:
    """The rate of a candidate."""

    name: str
    role: str
    rounds: tuple[float, ...]

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    def scaled(self, factor: float) -> "Figure":
        """Returns the figure in another unit."""
        return Figure(self.name, self.role, tuple(factor * rate for rate in self.rounds))


@dataclass(frozen=True)
class Comparison:
    """Rates of the same work by several candidates.

    Attributes:
        title: The work and its size.
        unit: The unit of the figures.
        figures: The figures, `THIS` first.
    """

    title: str
    unit: str
    figures: list[Figure]

    def times(self, figure: Figure) -> float:
        """Returns the ratio of this project's rate to another."""
        return self.figures[0].value / figure.value

    def __str__(self) -> str:
        """Returns a Markdown table with one row per figure."""
        this, *others = self.figures
        rows = [[this.name, this.role, shown(this.value), ""]]
        for figure in others:
            times = f"{shown(self.times(figure))} times as fast"
            rows.append([figure.name, figure.role, shown(figure.value), times])
        return str(Table([self.title, "", self.unit, "this project is"], rows, numeric=[2]))

    def summary(self) -> list[str]:
        """Returns title, figure and ratios for a row of the summary."""
        this, *others = self.figures
        ratios = [f"{shown(self.times(figure))} x {figure.name}" for figure in others]
        return [self.title, f"{shown(this.value)} {self.unit}", "; ".join(ratios)]

    def to_json(self) -> dict[str, Any]:
        """Returns all rounds, which show the spread."""
        figures = [
            {**asdict(figure), "value": figure.value, "times": self.times(figure)}
            for figure in self.figures
        ]
        return {"title": self.title, "unit": self.unit, "figures": figures}


def alternate(
    tasks: Sequence[Task], settings: Settings, clock: Callable[[], float] = time.perf_counter
) -> list[Figure]:
    """Measures candidates in turn, so that other load on the machine affects all alike.

    Args:
        tasks: The candidates; the first pass of each is not counted.
        settings: Number and minimum time of rounds.
        clock: The clock, of wall time or processor time.

    Returns:
        One figure per candidate, in work per second.
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
    """Returns a number with three significant digits, or without decimals if it is large."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def machine_properties() -> dict[str, Any]:
    """Returns properties that figures depend on: processor, memory, GPUs, versions."""
    from slim.common.compat import tf  # takes three seconds to import

    get_details = tf.config.experimental.get_device_details
    return {
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": [
            get_details(gpu).get("device_name", gpu.name)
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
