"""The transfer study: figures compared with other libraries, skipped cells, errors."""

import json
import re

import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist
from sklearn.preprocessing import normalize

from tests.support import write_checkpoint
from tests.transfer.study_world import (
    CLASSES,
    NEUTRAL,
    PLAIN,
    TARGETS,
    load,
    modified,
    read_table,
    run_study,
    score,
    write_source,
)


def distance(world, networks, source, target, scale=np.asarray) -> float:
    """Returns the EMD by POT; all classes have the same number of images."""
    means = []
    for domain in (source.split("+"), [target]):
        means.append([])
        for name in domain:
            views = [load(world, network, name, "train") for network in networks]
            values = np.concatenate([scale(v[0].astype(float)) for v in views], axis=1)
            labels = views[0][1]
            means[-1] += [values[labels == label].mean(axis=0) for label in range(CLASSES[name])]
    return ot.emd2([], [], cdist(*map(np.array, means)))


def test_results_equal_those_of_other_libraries_in_table_and_json(world):
    done = run_study(world)
    assert done.code == 0, done.error
    found = json.loads((world / "study/study.json").read_text())
    text = (world / "study/study.md").read_text()
    assert text in done.output
    accuracies, distances = (
        read_table(text, "Linear classifier"),
        read_table(text, "Domain similarity"),
    )
    assert len(found["cells"]) == 4 * 2
    expected = {}
    for cell in found["cells"]:
        source, target = pair = cell["source"], cell["target"]
        expected[pair] = score(world, source, target)
        assert cell["linear"]["accuracy"] == pytest.approx(expected[pair])
        assert cell["linear"]["images"] == 10 * CLASSES[target]
        assert cell["fine_tuned"] is None
        assert accuracies[pair].strip("*") == f"{expected[pair]:.1%}"
        # By the networks of the plain sources; the union and the selection are left out.
        emd = distance(world, PLAIN, source, target)
        assert cell["emd"] == pytest.approx(emd)
        assert cell["similarity"] == pytest.approx(np.exp(-0.01 * emd))
        assert distances[pair] == f"{emd:.3f} ({np.exp(-0.01 * emd):.3f})"
    for target in TARGETS:
        best = max(expected[source, target] for source in found["mean_accuracy"]["linear"])
        for (source, column), value in expected.items():
            if column == target:
                assert accuracies[source, target].startswith("**") == (value == best)
                assert (source in found["best"]["linear"][target]) == (value == best)
    for source, mean in found["mean_accuracy"]["linear"].items():
        assert mean == pytest.approx(np.mean([expected[source, t] for t in TARGETS]))
        assert accuracies[source, "mean"].strip("*") == f"{mean:.1%}"
    assert found["nearest"] == {"birds": "plants", "cars": "things"}
    points = np.array([[c["similarity"], c["linear"]["accuracy"]] for c in found["cells"]])
    overall = np.corrcoef(points.T)[0, 1]
    assert found["correlation"]["linear"]["overall"] == pytest.approx(overall)
    points = points.reshape(4, 2, 2)
    within = np.corrcoef((points - points.mean(axis=0)).reshape(8, 2).T)[0, 1]
    assert found["correlation"]["linear"]["within_targets"] == pytest.approx(within)
    assert f"{overall:+.2f} over all pairs, {within:+.2f} within targets" in text
    assert re.search(r"birds: nearest source plants \(EMD [\d.]+\), best source \w+", text)
    for name in ("study.png", "similarity.png"):
        assert (world / "study" / name).read_bytes().startswith(b"\x89PNG")


def test_distances_between_normalized_features(world):
    done = run_study(world, "--normalize_features")
    assert done.code == 0, done.error
    assert "The features of each image are scaled to length 1." in done.output
    found = json.loads((world / "study/study.json").read_text())
    assert found["settings"]["normalize_features"] is True
    for cell in found["cells"]:
        emd = distance(world, PLAIN, cell["source"], cell["target"], scale=normalize)
        assert cell["emd"] == pytest.approx(emd)


def test_finished_cells_are_skipped(world, monkeypatch):
    assert run_study(world).code == 0
    before = modified(world)
    monkeypatch.setattr("slim.transfer.study_steps.classify", None)
    monkeypatch.setattr("slim.transfer.study_steps.emd", None)
    done = run_study(world)
    assert done.code == 0, done.error
    assert done.output.count("(already done)") == 2 * 8
    assert modified(world) == before


def test_a_changed_checkpoint_changes_only_its_row(world):
    neutral = {"similarity_features": world / "feature" / NEUTRAL}
    assert run_study(world, **neutral).code == 0
    emd = json.loads((world / "study/study.json").read_text())["cells"][0]["emd"]
    assert emd == pytest.approx(distance(world, (NEUTRAL,), "plants", "birds"))
    write_source(world, "things", value=7, noise=3)
    done = run_study(world, **neutral)
    assert done.code == 0, done.error
    again = [
        line for line in done.output.splitlines() if " -> " in line and "already done" not in line
    ]
    assert [line.rsplit(" ", 1)[0] for line in again] == [
        f"things -> {target}: linear" for target in TARGETS
    ]
    cells = json.loads((world / "study/study.json").read_text())["cells"]
    found = {(cell["source"], cell["target"]): cell["linear"]["accuracy"] for cell in cells}
    assert found["things", "cars"] == pytest.approx(score(world, "things", "cars"))
    # Another --gamma changes only the similarity.
    done = run_study(world, "--gamma=0.1", **neutral)
    assert done.output.count("(already done)") == 16
    assert json.loads((world / "study/study.json").read_text())["cells"][0][
        "similarity"
    ] == pytest.approx(np.exp(-0.1 * emd))


def test_a_failed_cell_does_not_affect_others(world):
    path = world / "feature/things/cars_feature_val.npy"
    good = np.load(path)
    np.save(path, np.full_like(good, np.nan))
    done = run_study(world)
    assert done.code == 1
    assert re.fullmatch(
        r"error: 1 of 16 cells failed, the first is things -> cars: linear: .*cars_feature_val.npy "
        r"has a value that is not finite .*run the command again to retry them, .*\n",
        done.error,
    )
    found = json.loads((world / "study/study.json").read_text())
    assert [cell["linear"] is None for cell in found["cells"]].count(True) == 1
    assert found["mean_accuracy"]["linear"]["things"] is None
    assert read_table(done.output, "Linear classifier")["things", "cars"] == "-"
    np.save(path, good)
    done = run_study(world)
    assert done.code == 0, done.error
    assert done.output.count("(already done)") == 15


def test_errors_are_one_line_before_anything_is_written(world, colours):
    write_checkpoint(world / "resnet.ckpt", {"resnet_v2_50/weights": np.float32(1)})
    for changed, message in (
        ({"sources": None}, "--sources is missing: "),
        ({"targets": "birds,birds"}, "--targets=birds,birds: birds occurs twice"),
        ({"targets": "birds,"}, "--targets=birds,: a name is empty; omit the comma"),
        ({"targets": world / "data/birds"}, "no dataset '.*/birds': expected the name of a folder"),
        ({"sources": "../x", "similarity": False}, "--sources=../x: expected the name of a folder"),
        ({"sources": "plants+"}, r"--sources=plants\+: expected names, with '\+' between"),
        ({"sources": "plants+plants"}, "--sources=plants,plants: plants occurs twice"),
        ({"output_dir": ""}, "--output_dir is missing: Receives the results"),
        ({"output_dir": "/dev/null"}, "--output_dir=/dev/null: cannot make the folder"),
        ({"checkpoints": "a,,b,c"}, "--checkpoints=a,,b,c: a name is empty"),
        (
            {"checkpoints": "a,b"},
            "--checkpoints has 2 values, --sources has 4: expected none, or one per name",
        ),
        ({"checkpoints": None}, "--checkpoints: no checkpoint at ./checkpoints/plants "),
        (
            {"model_name": "a,b"},
            "--model_name has 2 values, --sources has 4: expected one for all, or one per",
        ),
        ({"model_name": "inception_v5"}, "unknown network 'inception_v5'; did you mean"),
        ({"batch_size": 10**20}, "batch_size=1"),
        ({"image_size": 70}, "image size 70x70 is too small for inception_v3"),
        (
            {"sources": "plants", "checkpoints": world / "resnet.ckpt"},
            "resnet.ckpt has no variable of inception_v3 .*: pass its --model_name",
        ),
        ({"targets": "birds,cras"}, "no dataset 'cras', .*: did you mean cars"),
        (
            {"sources": "plants,things,picked,plants+grass"},
            "no dataset 'grass', there is no folder .*data/grass.*, or --nosimilarity",
        ),
        ({"min_count": 13}, "--min_count=13: no class of plants has .*, the largest has 12; lower"),
        (
            {"similarity_features": world},
            f"--similarity_features: no features of birds in {world} .* or pass --nosimilarity",
        ),
        (
            {"sources": "plants+things", "checkpoints": world / "checkpoints/plants"},
            "--similarity_features is missing: all --sources are unions or selections",
        ),
        (
            {"sources": "picked", "checkpoints": world / "checkpoints/plants"},
            "--similarity_features is missing: all --sources are unions or selections",
        ),
        ({"fine_tune_steps": 5}, "--fine_tune_steps needs --fine_tune: add it, or omit"),
        ({"fine_tune": True}, "no train shards in .*birds: make them with .*convert_dataset.py"),
        (
            {"fine_tune": True, "fine_tune_steps": "1,2,3"},
            "--fine_tune_steps has 3 values, --targets has 2: expected one for all, or one per",
        ),
        (
            {"fine_tune": True, "fine_tune_steps": "10,0"},
            "--fine_tune_steps=10,0: expected positive numbers",
        ),
        (
            {"fine_tune": True, "fine_tune_flags": "--learning_rat=1"},
            "--fine_tune_flags: Unknown command line flag 'learning_rat'",
        ),
        ({"fine_tune": True, "fine_tune_flags": "'x"}, "--fine_tune_flags: No closing quotation"),
        (
            {"fine_tune": True, "fine_tune_flags": "x"},
            "--fine_tune_flags: unexpected 'x': pass",
        ),
        (
            {"fine_tune": True, "fine_tune_flags": "--train_dir=x"},
            "--fine_tune_flags: --train_dir is chosen by the study; omit it",
        ),
    ):
        done = run_study(world, **changed)
        assert done.code == 1, changed
        assert re.fullmatch(f"error: .*{message}.*\n", done.error), (changed, done.error)
    assert not (world / "study").exists()
