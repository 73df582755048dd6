"""Computes the numbers that the published repository states, and compares them.

    python -m slim.reproduce

takes the authors' features from --feature_dir, or fetches them from Google Drive, and prints a
table: the accuracy of the linear classifier on CUB-200-2011 and 21 Earth Mover's Distances between
domains.

A distance agrees if it has the published digits after the rounding of the published solver, which
rounds the weights of the classes to millionths. The accuracy agrees within 0.15 percentage points.
The exit code is 1 if a number disagrees or if its features are missing.
"""

from functools import partial
from pathlib import Path

from absl import flags

from slim.common.command_line import FlagSet, run_command
from slim.common.errors import UserError, warn
from slim.common.tables import Table
from slim.features.feature_files import SPLITS
from slim.weights.catalogue import ADDRESS, FEATURES
from slim.weights.fetching import provide_files


def define_flags(values: flags.FlagValues) -> None:
    define = FlagSet(values)
    define.string("feature_dir", "./feature/", "The folder with the authors' features.")
    define.string("address", ADDRESS, "The address of the features; {id} is their Google Drive id.")


def main(values: flags.FlagValues) -> None:
    from slim.transfer import reproduction as published
    from slim.transfer.domain_similarity import large_classes, similarity_table
    from slim.transfer.features import has_splits, load_features
    from slim.transfer.linear_classifier import classify
    from slim.transfer.prototypes import has_prototypes, load_prototypes, union

    folder = Path(values.feature_dir)
    classifier, birds = folder / published.CLASSIFIER_FEATURES, published.CLASSIFIER_DATASET
    similarity = folder / published.SIMILARITY_FEATURES
    files = published.SOURCES | {target: target for target in published.TARGETS}

    def find_missing() -> list[str]:
        missing = [] if has_splits(classifier, birds) else [f"{classifier.name}/{birds}"]
        absent = [file for file in files.values() if not has_prototypes(similarity, file)]
        return missing + [f"{similarity.name}/{file}" for file in absent]

    # 1. Fetch the authors' features, unless all of them are there.
    if find_missing():
        try:
            provide_files(FEATURES, folder, values.address)
        except UserError as error:
            warn(str(error))  # other numbers may have all that they need

    # 2. Compute the numbers whose features exist, here and with the rounding of the solver.
    found = {}
    if has_splits(classifier, birds):
        splits = [load_features(classifier, birds, split) for split in SPLITS]
        accuracy = 100 * classify(*splits).accuracy
        found[published.PUBLISHED_ACCURACY] = accuracy, accuracy
    domains = {
        name: load_prototypes(similarity, file)
        for name, file in files.items()
        if has_prototypes(similarity, file)
    }
    sources = [name for name in published.DISTANCES if domains.keys() >= set(name.split("+"))]
    targets = [name for name in published.TARGETS if name in domains]
    table = similarity_table(domains, sources, targets)
    for source, distances in zip(sources, table.emd, strict=True):
        large = large_classes(union([domains[part] for part in source.split("+")]))
        for target, distance in zip(targets, distances, strict=True):
            rounded = published.emd_as_published(large, domains[target])
            found[published.PUBLISHED_DISTANCES[source, target]] = distance, rounded

    # 3. Show them next to the published ones.
    rows = []
    for number in published.PUBLISHED:
        form, cells = f".{number.digits}f", ["missing", "", ""]
        if number in found:
            here, rounded = found[number]
            cells = [f"{here:{form}}", f"{here - number.value:+{form}}", f"{rounded:{form}}"]
        agrees = number in found and number.agrees(found[number][1])
        rows.append([number.name, f"{number.value:{form}}", *cells, "yes" if agrees else "no"])
    header = ["number", "published", "here", "difference", "rounded as published", "agrees"]
    print(Table(header, rows, numeric=range(1, 5)), flush=True)

    # 4. Fail unless all of them were computed and agree.
    problems, total = [], len(published.PUBLISHED)
    if different := sum(not number.agrees(rounded) for number, (_, rounded) in found.items()):
        problems.append(f"{different} of {total} numbers disagree")
    if absent := total - len(found):
        problems.append(
            f"{absent} of {total} numbers were not computed, --feature_dir={folder} lacks the "
            f"features {', '.join(find_missing())}"
        )
    if problems:
        raise UserError("; ".join(problems))


command = partial(run_command, define_flags, main, description=__doc__)

if __name__ == "__main__":
    command()
