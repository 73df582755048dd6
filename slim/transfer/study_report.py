"""Reports of a transfer study: tables in Markdown, plots, and JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from slim.common.figures import save_figure
from slim.common.files import write_whole
from slim.common.tables import Table
from slim.transfer.comparison import Accuracies, best_sources, transfer_correlation
from slim.transfer.domain_similarity import SimilarityTable
from slim.transfer.plots import plot_similarity, plot_transfers

FORMAT = 1  # of study.json
TITLES = {"linear": "Linear classifier", "fine_tuned": "Fine-tuned"}
NONE = "-"  # in a table, for a cell that failed


def write_report(
    folder: Path,
    results: Mapping[tuple[str, str, str], Mapping[str, Any]],
    failures: Mapping[str, str],
    settings: Mapping[str, Any],
    kinds: Sequence[str],
) -> None:
    """Writes `study.json`, `study.md` and the figures, unless they are current."""
    # 1. Results by kind, source and target become tables. Similarity needs all distances.
    sources, targets = ([each["name"] for each in settings[r]] for r in ("sources", "targets"))
    accuracies = {
        kind: {(s, t): found["accuracy"] for (k, s, t), found in results.items() if k == kind}
        for kind in kinds
    }
    pairs = list(product(sources, targets))
    distances = {pair: results.get(("emd", *pair), {}).get("emd") for pair in pairs}
    table = None
    if None not in distances.values():
        values = np.array(list(distances.values())).reshape(len(sources), len(targets))
        table = SimilarityTable(sources, targets, values, np.exp(-settings["gamma"] * values))

    # 2. `study.json`, which has all that the other files show.
    content = {
        "format": FORMAT,
        "settings": settings,
        # An accuracy in [0, 1] comes with the other results in the file of its cell.
        "cells": [
            {
                "source": source,
                "target": target,
                **{kind: results.get((kind, source, target)) for kind in TITLES},
                "emd": distances[source, target],
                "similarity": float(table.similarity[row, column]) if table else None,
            }
            for row, source in enumerate(sources)
            for column, target in enumerate(targets)
        ],
        "mean_accuracy": {
            kind: {source: mean_accuracy(found, source, targets) for source in sources}
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
        "nearest": {t: table.nearest_first(t)[0] for t in targets} if table else None,
        "best": {
            kind: {target: best_sources(found, target) for target in targets}
            for kind, found in accuracies.items()
        },
        "failures": [{"cell": cell, "error": error} for cell, error in failures.items()],
    }
    text = json.dumps(content, indent=2) + "\n"
    path = folder / "study.json"
    if path.exists() and path.read_text() == text:
        return

    # 3. The files, `study.json` last, so that the other files exist if it does.
    path.unlink(missing_ok=True)
    write_whole(folder / "study.md", compose_markdown(accuracies, table, settings))
    if table:
        ways = {
            f"transfer accuracy, {TITLES[kind].lower()}": found
            for kind, found in accuracies.items()
            if found
        }
        if ways:
            save_figure(plot_transfers(table, ways), folder / "study.png")
        save_figure(plot_similarity(table), folder / "similarity.png")
    write_whole(path, text)


def compose_markdown(
    accuracies: Mapping[str, Accuracies],
    table: SimilarityTable | None,
    settings: Mapping[str, Any],
) -> str:
    """Returns the content of `study.md`."""
    sources = [source["name"] for source in settings["sources"]]
    images = {target["name"]: target["images"]["val"] for target in settings["targets"]}
    parts = ["# Transfer from pre-training sources to targets\n"]
    # 1. A table of accuracies for each way of transfer.
    for kind, accuracy in accuracies.items():
        columns = [[accuracy.get((source, target)) for source in sources] for target in images]
        columns.append([mean_accuracy(accuracy, source, images) for source in sources])
        texts = [format_column(column) for column in columns]
        rows = list(zip(sources, *texts, strict=True))
        parts.append(f"## {TITLES[kind]}\n")
        parts.append(f"{Table(['pre-training', *images, 'mean'], rows)}\n")
    fewest = min(images.values())
    parts.append(
        "Top-1 accuracy on the validation images, with the best of each column in bold. The "
        f"standard error of an accuracy over {fewest:,} images is at most "
        f"{0.5 / math.sqrt(fewest):.1%}.\n"
    )
    # 2. Similarities, and whether they predict the accuracies.
    if table:
        parts.append("## Domain similarity\n")
        parts.append(f"{table}\n")
        if settings["normalize_features"]:
            parts.append("The features of each image are scaled to length 1.\n")
        parts.append("![domain similarity](similarity.png)\n")
        parts.append("## Do nearer sources transfer better?\n")
        parts.append("![accuracy against similarity](study.png)\n")
        for kind, accuracy in accuracies.items():
            if accuracy:
                lines = compose_claims(table, accuracy, images)
                parts.append("\n".join([f"{TITLES[kind]}:\n", *lines]) + "\n")
    return "\n".join(parts)


def mean_accuracy(accuracy: Accuracies, source: str, targets: Sequence[str]) -> float | None:
    """Returns the mean accuracy over all targets, None if one is missing."""
    found = [accuracy.get((source, target)) for target in targets]
    return None if None in found else float(np.mean(found))


def format_column(column: Sequence[float | None]) -> list[str]:
    """Returns the accuracies of a column as text, the best in bold."""
    texts = [NONE if value is None else f"{value:.1%}" for value in column]
    best = max((value for value in column if value is not None), default=NONE)
    return [f"**{text}**" if column[i] == best else text for i, text in enumerate(texts)]


def compose_claims(
    table: SimilarityTable, accuracy: Accuracies, images: Mapping[str, int]
) -> list[str]:
    """Returns a line per target, which compares the nearest source with the best, and totals."""
    lines, agreed, judged = [], 0, 0
    for target, total in images.items():
        nearest, best = table.nearest_first(target)[0], best_sources(accuracy, target)
        if (nearest, target) not in accuracy:  # its cell failed
            continue
        judged += 1
        agreed += nearest in best
        distance = table.emd[table.sources.index(nearest), table.targets.index(target)]
        highest, of_nearest = accuracy[best[0], target], accuracy[nearest, target]
        line = (
            f"- {target}: nearest source {nearest} (EMD {distance:.3f}), best source "
            f"{' and '.join(best)} ({highest:.1%})"
        )
        if nearest not in best:
            missed = round((highest - of_nearest) * total)
            line += f"; the nearest has {of_nearest:.1%}, {missed} of {total:,} images fewer"
        lines.append(line)
    # The totals.
    lines.append(f"- the nearest source is the best for {agreed} of {judged} targets")
    r = transfer_correlation(table, accuracy)
    texts = [
        f"{value:+.2f} {where}" if math.isfinite(value) else f"undefined {where}"
        for value, where in ((r.overall, "over all pairs"), (r.within_targets, "within targets"))
    ]
    lines.append(f"- correlation of accuracy with similarity: {', '.join(texts)}")
    return lines
