"""Reports of a transfer study: tables in Markdown, plots, and JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slim.common.figures import save_figure
from slim.common.files import write_whole
from slim.common.tables import Table
from slim.transfer.domain_similarity import SimilarityTable
from slim.transfer.plots import plot_similarity, plot_transfers, transfer_correlation
from slim.transfer.study.cells import Accuracies, Cells
from slim.transfer.study.domains import Domains
from slim.transfer.study.settings import StudySettings
from slim.transfer.study.sources import StudySource, Target

FORMAT = 1  # of study.json
TITLES = {"linear": "Linear classifier", "fine_tuned": "Fine-tuned"}
NONE = "-"  # in a table, for a cell that failed


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The results of a study."""

    sources: Sequence[str]  # rows of tables
    targets: Sequence[str]  # columns
    images: Mapping[str, int]  # validation images per target
    accuracies: Mapping[str, Accuracies]  # by kind, without failed cells
    similarity: SimilarityTable | None  # None if it was left out or a cell failed
    cells: Cells


def collect_findings(
    cells: Cells,
    sources: Sequence[StudySource],
    targets: Sequence[Target],
    *,
    kinds: Sequence[str],
    gamma: float,
) -> Findings:
    """Returns the results of a study, with the accuracies of the given kinds."""
    rows, columns = [source.name for source in sources], [target.name for target in targets]
    results = [[cells.results.get(("emd", s, t), {"emd": np.nan}) for t in columns] for s in rows]
    distances = np.array([[result["emd"] for result in row] for row in results])
    table = SimilarityTable(rows, columns, distances, np.exp(-gamma * distances))
    return Findings(
        sources=rows,
        targets=columns,
        images={target.name: target.num_images["val"] for target in targets},
        accuracies={kind: cells.accuracies(kind) for kind in kinds},
        similarity=None if np.isnan(distances).any() else table,
        cells=cells,
    )


def write_report(folder: Path, findings: Findings, settings: Mapping[str, Any]) -> None:
    """Writes the files of a study unless they are current."""
    contents = json.dumps(compose_json(findings, settings), indent=2) + "\n"
    path = folder / "study.json"
    if path.exists() and path.read_text() == contents:
        return
    path.unlink(missing_ok=True)  # written last, so that the other files exist if it does
    write_whole(folder / "study.md", compose_markdown(findings, settings))
    if table := findings.similarity:
        ways = {
            f"transfer accuracy, {TITLES[kind].lower()}": found
            for kind, found in findings.accuracies.items()
            if found
        }
        if ways:
            save_figure(plot_transfers(table, ways), folder / "study.png")
        save_figure(plot_similarity(table), folder / "similarity.png")
    write_whole(path, contents)


def compose_settings(
    sources: Sequence[StudySource],
    targets: Sequence[Target],
    domains: Domains | None,
    *,
    study: StudySettings,
) -> dict[str, Any]:
    """Returns the settings of a study for `study.json`."""
    return {
        "sources": [
            {"name": source.name, "checkpoint": source.checkpoint, **asdict(source.settings)}
            for source in sources
        ],
        "targets": [
            {"name": target.name, "images": target.num_images, "list_sha256": target.hashes}
            for target in targets
        ],
        "similarity_features": [str(view.folder) for view in domains.views] if domains else None,
        "normalize_features": study.normalize_features,
        "gamma": study.gamma,
        "min_count": study.min_count,
    }


def compose_json(findings: Findings, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of `study.json`.

    - `settings`: see `compose_settings`;
    - `cells`: for each source and target, `linear` and `fine_tuned` (accuracy in [0, 1], images,
      and all else that the file of the cell has), `emd` and `similarity`; null if there is none;
    - `mean_accuracy`: by kind and source, over all targets;
    - `correlation`: by kind, of similarity with accuracy, `overall` and `within_targets`;
    - `nearest`, `best`: nearest source by target, and best sources by kind and target;
    - `failures`: cells without a result, and their errors.
    """
    table, accuracies, cells = findings.similarity, findings.accuracies, findings.cells
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
    """Returns the mean accuracy over all targets, None if one is missing."""
    found = [accuracy.get((source, target)) for target in targets]
    return None if None in found else float(np.mean(found))


def nearest_source(table: SimilarityTable, target: str) -> str:
    """Returns the source with the smallest distance."""
    return table.sources[int(table.emd[:, table.targets.index(target)].argmin())]


def best_sources(accuracy: Accuracies, target: str) -> list[str]:
    """Returns the source with the highest accuracy, or several with the same."""
    found = {source: value for (source, name), value in accuracy.items() if name == target}
    return [source for source, value in found.items() if value == max(found.values())]


def compose_markdown(findings: Findings, settings: Mapping[str, Any]) -> str:
    """Returns the content of `study.md`: accuracies, distances, and how they are related."""
    parts = ["# Transfer from pre-training sources to targets\n"]
    for kind, accuracy in findings.accuracies.items():
        parts.append(f"## {TITLES[kind]}\n")
        parts.append(accuracy_table(findings, accuracy) + "\n")
    fewest = min(findings.images.values())
    parts.append(
        "Top-1 accuracy on the validation images, with the best of each column in bold. The "
        f"standard error of an accuracy over {fewest:,} images is at most "
        f"{0.5 / math.sqrt(fewest):.1%}.\n"
    )
    if table := findings.similarity:
        parts.append("## Domain similarity\n")
        parts.append(f"{table}\n")
        if settings["normalize_features"]:
            parts.append("The features of each image are scaled to length 1.\n")
        parts.append("![domain similarity](similarity.png)\n")
        parts.append("## Do nearer sources transfer better?\n")
        parts.append("![accuracy against similarity](study.png)\n")
        parts += [
            "\n".join([f"{TITLES[kind]}:\n", *compose_claims(findings, table, accuracy)]) + "\n"
            for kind, accuracy in findings.accuracies.items()
            if accuracy
        ]
    return "\n".join(parts)


def accuracy_table(findings: Findings, accuracy: Accuracies) -> str:
    """Returns accuracies in Markdown, with one row per source and a column of means."""
    columns = [[accuracy.get((s, t)) for s in findings.sources] for t in findings.targets]
    columns.append([mean_accuracy(accuracy, s, findings.targets) for s in findings.sources])
    texts = [
        [_cell(value, [v for v in column if v is not None]) for value in column]
        for column in columns
    ]
    rows = list(zip(findings.sources, *texts, strict=True))
    return str(Table(["pre-training", *findings.targets, "mean"], rows))


def compose_claims(findings: Findings, table: SimilarityTable, accuracy: Accuracies) -> list[str]:
    """Returns a line per target, which compares the nearest source with the best, and totals."""
    lines, agreed, judged = [], 0, 0
    for target in findings.targets:
        best = best_sources(accuracy, target)
        nearest = nearest_source(table, target)
        if (nearest, target) not in accuracy:
            continue
        judged += 1
        agreed += nearest in best
        distance = table.emd[table.sources.index(nearest), table.targets.index(target)]
        value, of_nearest = accuracy[best[0], target], accuracy[nearest, target]
        line = (
            f"- {target}: nearest source {nearest} (EMD {distance:.3f}), best source "
            f"{' and '.join(best)} ({value:.1%})"
        )
        if nearest not in best:
            images = findings.images[target]
            missed = round((value - of_nearest) * images)
            line += f"; the nearest has {of_nearest:.1%}, {missed} of {images:,} images fewer"
        lines.append(line)
    lines.append(f"- the nearest source is the best for {agreed} of {judged} targets")
    r = transfer_correlation(table, accuracy)
    texts = [
        f"{value:+.2f} {where}" if math.isfinite(value) else f"undefined {where}"
        for value, where in ((r.overall, "over all pairs"), (r.within_targets, "within targets"))
    ]
    lines.append(f"- correlation of accuracy with similarity: {', '.join(texts)}")
    return lines


def _cell(value: float | None, column: Sequence[float]) -> str:
    """Returns an accuracy as text, in bold if it is the best of its column."""
    if value is None:
        return NONE
    return f"**{value:.1%}**" if value == max(column) else f"{value:.1%}"
