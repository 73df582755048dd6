"""Results of a transfer study per source and target, kept in files.

The name of a file contains a hash of everything the result depends on. A result whose file exists
is not computed again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slim.common.errors import UserError
from slim.common.files import write_whole

KINDS = {"linear": "linear", "fine_tuned": "fine-tuned", "emd": "EMD"}

Accuracies = Mapping[tuple[str, str], float]  # by source and target


@dataclass(frozen=True)
class Cell:
    """A result of the study for a source and a target."""

    kind: str  # a key of KINDS
    source: str
    target: str
    settings: Mapping[str, Any]  # everything the result depends on, as JSON

    @property
    def key(self) -> str:
        """The hash of the settings."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}: {KINDS[self.kind]}"


class Cells:
    """The results of a study, in memory and in `<output_dir>/cells`.

    Attributes:
        results: Results by kind, source and target.
        failures: Error messages by the text of the cell.
    """

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._folder = output_dir / "cells"
        self._folder.mkdir(exist_ok=True)
        self.results: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.failures: dict[str, str] = {}

    def find(self, cell: Cell) -> bool:
        """Returns whether a result exists; if so, loads and prints it."""
        path = self._path(cell)
        if not path.exists():
            return False
        self._store(cell, json.loads(path.read_text())["result"], " (already done)")
        return True

    def add(self, cell: Cell, result: dict[str, Any]) -> None:
        """Writes and prints a result."""
        content = {**asdict(cell), "result": result}
        write_whole(self._path(cell), json.dumps(content, indent=2) + "\n")
        self._store(cell, result)

    def fail(self, cell: Cell, error: UserError) -> None:
        """Records and prints an error; the next run tries again."""
        self.failures[str(cell)] = str(error)
        print(f"{cell} failed: {error}", flush=True)

    def compute(self, cell: Cell, work: Callable[[], dict[str, Any]]) -> None:
        """Computes a result unless it exists; an error does not affect other cells."""
        if not self.find(cell):
            try:
                self.add(cell, work())
            except UserError as error:
                self.fail(cell, error)

    def accuracies(self, kind: str) -> Accuracies:
        """Returns the accuracies of a kind by source and target."""
        return {
            (source, target): result["accuracy"]
            for (found, source, target), result in self.results.items()
            if found == kind
        }

    def check_failures(self) -> None:
        """Raises an error if cells failed."""
        if self.failures:
            cell, error = next(iter(self.failures.items()))
            total = len(self.failures) + len(self.results)
            raise UserError(
                f"{len(self.failures)} of {total} cells failed, the first is {cell}: {error}; run "
                f"the command again to retry them, the other results are kept in {self._output_dir}"
            )

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.kind}-{cell.source}-{cell.target}-{cell.key}.json"

    def _store(self, cell: Cell, result: dict[str, Any], note: str = "") -> None:
        self.results[cell.kind, cell.source, cell.target] = result
        value = f"{result['emd']:.3f}" if cell.kind == "emd" else f"{result['accuracy']:.1%}"
        print(f"{cell} {value}{note}", flush=True)
