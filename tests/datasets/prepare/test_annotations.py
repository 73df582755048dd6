"""Tables of labelled images, as people and competitions deliver them."""

import csv
import json
import re

import pytest

from tests.datasets.conftest import convert
from tests.datasets.prepare.conftest import prepare, texts
from tests.datasets.prepare.miniatures import draw

BIRDS = {f"b{i}.jpg": ["wren", "robin", "owl"][i % 3] for i in range(12)}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "photos"
    draw(folder, BIRDS)
    return folder


def write_csv(path, header, rows, **options):
    with path.open("w", newline="") as file:
        csv.writer(file, **options).writerows([header, *rows])
    return path


def read(data, *tables, images=None, more=(), code=0, name="own"):
    flags = [f"--dataset_name={name}", f"--dataset_dir={data}", *more]
    flags += [f"--from_table={','.join(map(str, tables))}"]
    flags += [f"--images={images}"] if images else []
    return prepare(*flags, code=code)


def lists(folder):
    """The path and the name of the class of each line of a list."""
    lines = (folder / "classes.txt").read_text().splitlines()
    names = dict(line.split(" ", 1) for line in lines)
    found = []
    for split in ("train", "val"):
        if (path := folder / f"{split}.txt").exists():
            pairs = (line.rsplit(": ", 1) for line in path.read_text().splitlines())
            found.append({path.removeprefix("images/"): names[label] for path, label in pairs})
    return found


def test_one_table_is_split_as_folders_are(data, images, tmp_path):
    table = write_csv(images / "train.csv", ["file", "label"], BIRDS.items())
    out, error = read(data, table)  # beside its images
    assert error == "" and "images from 'file', labels from 'label'" in out
    assert f"{data}/own: 9 train, 3 validation, 3 classes" in out and "--apply_orientation" in out
    train, validation = lists(data / "own")
    assert train | validation == BIRDS and not train.keys() & validation.keys()
    assert sorted(validation.values()) == ["owl", "robin", "wren"]
    assert [*train] == [path for path in BIRDS if path in train]  # in the order of the table
    convert(data / "own", "--num_shards=1", "--num_workers=1")
    for seed in (0, 1, 2):  # equal for equal seeds, whatever the order of the rows
        some, again = (f"{name}{seed}" for name in ("some", "again"))
        read(data, table, more=[f"--seed={seed}"], name=some)
        reverse = write_csv(tmp_path / "r.csv", ["file", "label"], reversed(BIRDS.items()))
        read(data, reverse, images=images, more=[f"--seed={seed}"], name=again)
        assert lists(data / some) == lists(data / again)
    assert len({(data / f"some{seed}/val.txt").read_text() for seed in (0, 1, 2)}) > 1
    read(data, table, more=["--val_fraction=0"], name="all")
    assert lists(data / "all") == [BIRDS]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_two_tables_with_numbers_names_and_ids(data, images, tmp_path, delimiter):
    """Ids without extension; sparse numbers become dense; other columns, quotes and a BOM."""
    number = {"wren": 1010, "robin": 9, "owl": 10}
    rows = [[path[:-4], 'a "b", c; d', number[name], name] for path, name in BIRDS.items()]
    header = ["Image ID", "comment", "class_id", "Class Name"]
    tables = [
        write_csv(tmp_path / f"{name}.csv", header, part, delimiter=delimiter)
        for name, part in (("train", rows[:9]), ("val", rows[9:]))
    ]
    tables[0].write_bytes(b"\xef\xbb\xbf" + tables[0].read_bytes())
    out, error = read(data, *tables, images=images)
    assert "labels from 'class_id', names from 'Class Name'" in out and error == ""
    assert lists(data / "own") == [dict([*BIRDS.items()][:9]), dict([*BIRDS.items()][9:])]
    classes = (data / "own/classes.txt").read_text()
    assert classes == "0 robin\n1 owl\n2 wren\n"  # in ascending order of the numbers


@pytest.mark.parametrize("header", [["Image", "Id"], ["id", "breed"], ["a", "path", "species"]])
def test_usual_and_named_columns(data, images, tmp_path, header):
    rows = [[*["x"] * (len(header) - 2), path, name] for path, name in BIRDS.items()]
    read(data, write_csv(tmp_path / "t.csv", header, rows), images=images)
    train, validation = lists(data / "own")
    assert train | validation == BIRDS
    odd = write_csv(tmp_path / "odd.csv", ["p", "q", "r"], [(0, *row) for row in BIRDS.items()])
    error = read(data, odd, images=images, code=1, name="odd")[1]
    assert "odd.csv has the columns p, q, r: pass those of the images and labels as" in error
    named = ["--path_column=q", "--label_column=r"]
    read(data, odd, images=images, name="odd", more=named)
    assert texts(data / "odd") == texts(data / "own")
    wrong = [named[0], "--label_column=s"]
    assert "has the columns p, q, r" in read(data, odd, more=wrong, code=1, name="other")[1]


def coco(path, files, labels, names, **more):
    content = {
        "info": {},
        "images": [{"id": 7 * i, "file_name": f, "width": 4} for i, f in enumerate(files)],
        "annotations": [
            {"id": i, "image_id": 7 * image, "category_id": label, "bbox": [0, 0, 1, 1]}
            for i, (image, label) in enumerate(labels)
        ],
        "categories": [{"id": k, "name": n, "supercategory": "Aves"} for k, n in names.items()],
    }
    path.write_text(json.dumps({**content, **more}))
    return path


def test_json_of_competitions(data, tmp_path):
    """As iNaturalist 2018 to 2021: the file names begin with the folder; ids are sparse."""
    root, names = tmp_path / "train_val2019", {4: "owl", 0: "wren", 99: "unused", 20: "robin"}
    paths = [f"train_val2019/Birds/{i}/{i:032x}.jpg" for i in range(6)]
    draw(tmp_path, paths)
    ids = [4, 20, 0, 4, 20, 0]
    train = coco(tmp_path / "train2019.json", paths[:3], enumerate(ids[:3]), names)
    # Several annotations of one image, of the same class.
    val = coco(tmp_path / "val2019.json", paths[3:], [*enumerate(ids[3:]), (0, 4), (0, 4)], names)
    for folder, name in ((tmp_path, "above"), (root, "within")):
        out, error = read(data, train, val, images=folder, name=name)
        assert error == "" and f"{val}: 2 rows of images that are listed already" in out
        expected = [(path, names[k]) for path, k in zip(paths, ids, strict=True)]
        assert lists(data / name) == [dict(expected[:3]), dict(expected[3:])]
        assert (data / name / "classes.txt").read_text() == "0 wren\n1 owl\n2 robin\n"


def test_faults_are_counted_and_left_out_on_request(data, images, tmp_path):
    rows = [*BIRDS.items(), ("b0.jpg", "wren"), ("b1.jpg", "owl"), ("b2.jpg", "owl")]
    rows += [("gone.jpg", "owl"), ("../b3.jpg", "owl"), ("b4.png", "")]
    train = write_csv(tmp_path / "train.csv", ["file", "label"], rows)
    val = write_csv(tmp_path / "val.csv", ["file", "label"], [("b5.jpg", "kiwi")])
    error = read(data, train, val, images=images, code=1)[1]
    expected = (
        "images outside of it (1): ../b3.jpg; images without one label (2): b1.jpg, b4.png; "
        "labels that only validation has (1): kiwi; nothing was written"
    )
    assert expected in error and not data.exists()
    out, warnings = read(data, train, val, images=images, more=["--allow_partial"])
    assert "2 rows of images that are listed already" not in out and "3 rows of" in out
    assert "missing images (1): gone.jpg" in warnings and warnings.count("warning: ") == 4
    unusable = {"b1.jpg"}
    kept = {path: name for path, name in BIRDS.items() if path not in unusable}
    assert lists(data / "own") == [kept, {"b5.jpg": "kiwi"}]


def test_a_test_table_and_other_files_are_refused(data, images, tmp_path):
    test = coco(tmp_path / "test.json", ["b1.jpg"], [], {0: "owl"})
    assert "images without one label (1): b1.jpg" in read(data, test, images=images, code=1)[1]
    ids = write_csv(tmp_path / "test.csv", ["id"], [["b1"]])
    for table, message in (
        (ids, "test.csv has the columns id: pass those of the images and labels"),
        (tmp_path / "none.csv", "none.csv is not a file: pass a CSV, TSV or COCO JSON file"),
        (tmp_path, f"{tmp_path} is not a file"),
        (write_csv(tmp_path / "empty.csv", ["path", "label"], []), "empty.csv lists no images"),
        (coco(tmp_path / "x.json", [], [], {}, images=3), "x.json is not the published file"),
        (f"{ids},{ids},{ids}", "--from_table takes a table, or two with a comma between"),
    ):
        error = read(data, table, images=images, code=1)[1]
        assert message in error and error.count("\n") == 1
    error = read(data, ids, more=["--from_folders=x"], code=1)[1]
    assert re.search("--from_table excludes .*--from_folders", error)
    assert "is one of the paper's" in read(data, ids, code=1, name="nabirds")[1]
    assert not data.exists()
