"""What a transfer study found: tables in Markdown, plots, and all of it for a machine."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from slim.common.files import replacing, write_whole
from slim.transfer.domain_similarity import SimilarityTable
from slim.transfer.plots import plot_similarity, plot_transfers, transfer_correlation
from slim.transfer.study.cells import Cells

FORMAT = 1  # of study.json
TITLES = {"linear": "Linear classifier", "fine_tuned": "Fine-tuned"}
NONE = "-"  # in a table, where a cell failed

Accuracies = Mapping[tuple[str, str], float]  # by source and target


@dataclass(frozen=True)
class Findings:
    """The results of a study.

    Attributes:
        sources: Names, the rows.
        targets: Names, the columns.
        accuracies: By kind, accuracies by source and target; failed cells are left out.
        images: The validation images of each target.
        similarity: None where it was left out, or where a cell of it failed.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    accuracies: Mapping[str, Accuracies]
    images: Mapping[str, int]
    similarity: SimilarityTable | None


def find_similarity(
    cells: Cells, sources: Sequence[str], targets: Sequence[str], gamma: float
) -> SimilarityTable | None:
    """The distances of the study's cells as a table, None where there are not all of them."""
    found = [
        [cells.results.get(("emd", source, target)) for target in targets] for source in sources
    ]
    if not all(result for row in found for result in row):
        return None
    distances = np.array([[result["emd"] for result in row] for row in found])
    return SimilarityTable(list(sources), list(targets), distances, np.exp(-gamma * distances))


def write_report(
    folder: Path, findings: Findings, cells: Cells, settings: Mapping[str, Any]
) -> None:
    """Writes `study.md`, `study.png`, `similarity.png` and `study.json`, each where it changed.

    Args:
        folder: Of the study.
        findings: What was found.
        cells: Where it was found.
        settings: Of the study, for `study.json`.
    """
    contents = json.dumps(describe(findings, cells, settings), indent=2) + "\n"
    path = folder / "study.json"
    if path.exists() and path.read_text() == contents:
        return
    path.unlink(missing_ok=True)  # which is there when the others are
    write_whole(folder / "study.md", compose_text(findings))
    if table := findings.similarity:
        ways = {
            f"transfer accuracy, {TITLES[kind].lower()}": found
            for kind, found in findings.accuracies.items()
            if found
        }
        if ways:
            save_figure(folder / "study.png", plot_transfers(table, ways))
        save_figure(folder / "similarity.png", plot_similarity(table))
    write_whole(path, contents)


def save_figure(path: Path, figure: Figure) -> None:
    """Writes a figure whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def describe(findings: Findings, cells: Cells, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that `study.json` holds.

    - `settings`: sources (checkpoint, its hash, network, averages, size), targets (images and list
      hashes), gamma, min_count and whose features similarity is of;
    - `cells`: for each source and target `linear` and `fine_tuned` (accuracy in [0, 1], images, and
      what else the cell's file says), `emd`, `similarity`; null where there is none;
    - `mean_accuracy`: by kind and source, over all targets;
    - `correlation`: by kind, of similarity with accuracy: `overall`, and `within_targets`;
    - `nearest`, `best`: sources by target, the best ones by kind;
    - `failures`: cells without a result, and why.
    """
    table, accuracies = findings.similarity, findings.accuracies
    rows = [
        {
            "source": source,
            "target": target,
            **{kind: cells.results.get((kind, source, target)) for kind in TITLES},
            "emd": cells.results.get(("emd", source, target), {}).get("emd"),
            "similarity": float(table.similarity[row, column]) if table else None,
        }
        for row, source in enumerate(findings.sources)
        for column, target in enumerate(findings.targets)
    ]
    return {
        "format": FORMAT,
        "settings": settings,
        "cells": rows,
        "mean_accuracy": {
            kind: {s: mean_accuracy(found, s, findings.targets) for s in findings.sources}
            for kind, found in accuracies.items()
        },
        "correlation": {
            kind: {
                name: r if math.isfinite(r) else None
                for name, r in transfer_correlation(table, found)._asdict().items()
            }
            for kind, found in accuracies.items()
            if table
        },
        "nearest": {t: nearest_source(table, t) for t in findings.targets} if table else None,
        "best": {
            kind: {t: best_sources(found, t) for t in findings.targets}
            for kind, found in accuracies.items()
        },
        "failures": [{"cell": cell, "error": error} for cell, error in cells.failures.items()],
    }


def mean_accuracy(accuracy: Accuracies, source: str, targets: Sequence[str]) -> float | None:
    """The mean over all targets, None where one is lacking."""
    found = [accuracy.get((source, target)) for target in targets]
    return None if None in found else float(np.mean(found))


def nearest_source(table: SimilarityTable, target: str) -> str:
    """The source of the least distance."""
    return table.sources[int(table.emd[:, table.targets.index(target)].argmin())]


def best_sources(accuracy: Accuracies, target: str) -> list[str]:
    """The source of the highest accuracy; several where they are equal."""
    found = {source: value for (source, name), value in accuracy.items() if name == target}
    return [source for source, value in found.items() if value == max(found.values())]


def compose_text(findings: Findings) -> str:
    """The study in Markdown: accuracies, distances, and what the paper claims of them."""
    parts = ["# Transfer from pre-training sources to targets\n"]
    for kind, accuracy in findings.accuracies.items():
        parts.append(f"## {TITLES[kind]}\n")
        parts.append(accuracy_table(findings, accuracy) + "\n")
    fewest = min(findings.images.values())
    parts.append(
        "Top-1 accuracy on validation images, the best of each column bold. Chance alone moves an "
        f"accuracy over {fewest:,} images by up to {0.5 / math.sqrt(fewest):.1%} (one standard "
        "error).\n"
    )
    if table := findings.similarity:
        parts.append("## Domain similarity\n")
        parts.append(f"{table}\n")
        parts.append("![domain similarity](similarity.png)\n")
        parts.append("## Do nearer sources transfer better?\n")
        parts.append("![accuracy against similarity](study.png)\n")
        parts += [
            "\n".join([f"{TITLES[kind]}:\n", *claims(findings, table, accuracy)]) + "\n"
            for kind, accuracy in findings.accuracies.items()
            if accuracy
        ]
    return "\n".join(parts)


def accuracy_table(findings: Findings, accuracy: Accuracies) -> str:
    """Accuracies in Markdown: a row a source, a column a target, and their mean."""
    columns = [[accuracy.get((s, t)) for s in findings.sources] for t in findings.targets]
    columns.append([mean_accuracy(accuracy, s, findings.targets) for s in findings.sources])
    lines = [["pre-training", *findings.targets, "mean"], ["---"] * (len(columns) + 1)]
    texts = [
        [_cell(value, [v for v in column if v is not None]) for value in column]
        for column in columns
    ]
    lines += [list(row) for row in zip(findings.sources, *texts, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def claims(findings: Findings, table: SimilarityTable, accuracy: Accuracies) -> list[str]:
    """Whether the nearest source is the best one, a line a target, and the correlation."""
    lines, right, judged = [], 0, 0
    for target in findings.targets:
        best = best_sources(accuracy, target)
        nearest = nearest_source(table, target)
        if (nearest, target) not in accuracy:
            continue
        judged += 1
        right += nearest in best
        distance = table.emd[table.sources.index(nearest), table.targets.index(target)]
        value = accuracy[best[0], target]
        verdict = "the same"
        if nearest not in best:
            missed = round((value - accuracy[nearest, target]) * findings.images[target])
            verdict = (
                f"not the same: {accuracy[nearest, target]:.1%} from the nearest, {missed} of "
                f"{findings.images[target]:,} images fewer"
            )
        lines.append(
            f"- {target}: nearest source {nearest} (EMD {distance:.3f}), best source "
            f"{' and '.join(best)} ({value:.1%}); {verdict}"
        )
    lines.append(f"- the nearest source is the best one for {right} of {judged} targets")
    r = transfer_correlation(table, accuracy)
    texts = [
        f"{value:+.2f} {where}" if math.isfinite(value) else f"not defined {where}"
        for value, where in ((r.overall, "over all pairs"), (r.within_targets, "within targets"))
    ]
    lines.append(f"- correlation of accuracy with similarity: {', '.join(texts)}")
    return lines


def _cell(value: float | None, column: Sequence[float]) -> str:
    """An accuracy in a table, bold where it is the best of its column."""
    if value is None:
        return NONE
    return f"**{value:.1%}**" if value == max(column) else f"{value:.1%}"
