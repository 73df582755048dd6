import hashlib

import pytest

from slim.common.errors import UserError
from slim.datasets.lists import Entry, count_classes, find_gaps, read_list


def write(tmp_path, content, name="train.txt"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_lines(tmp_path):
    content = (
        b"\xef\xbb\xbfa.jpg: 0\r\n\r\n  \nb c/d: e.jpg: 12\n./a/f.jpg: 3 \nd\xe9j\xe0.jpg: 1\n"
        b"x\xe2\x80\xa8y.jpg: 2"
    )
    found = read_list(write(tmp_path, content))
    assert found.entries == [
        Entry("a.jpg", 0, 1),
        Entry("b c/d: e.jpg", 12, 4),
        Entry("./a/f.jpg", 3, 5),
        Entry(b"d\xe9j\xe0.jpg".decode(errors="surrogateescape"), 1, 6),
        Entry("x\u2028y.jpg", 2, 7),
    ]
    assert found.problems == []
    assert found.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.jpg", "'a.jpg' is not of the form 'relative/path.jpg: label'"),
        ("a.jpg:1", "is not of the form"),
        ("a.jpg: one", "is not of the form"),
        ("a.jpg: 1.0", "is not of the form"),
        ("a.jpg: 1_0", "is not of the form"),
        ("a.jpg: 99999999999999999999", "is not of the form"),
        (": 3", "is not of the form"),
        ("a\0.jpg: 3", "is not of the form"),
        ("a.jpg: -1", "a.jpg: label -1 is negative"),
        ("/a.jpg: 1", "/a.jpg: leaves the dataset's folder"),
        ("../a.jpg: 1", "../a.jpg: leaves the dataset's folder"),
        ("a/../../b.jpg: 1", "leaves the dataset's folder"),
        ("good.jpg: 1", "good.jpg: already on line 1 with another label, 0, not 1"),
    ],
)
def test_bad_lines(tmp_path, line, expected):
    found = read_list(write(tmp_path, f"good.jpg: 0\n{line}\n".encode()))
    assert found.entries == [Entry("good.jpg", 0, 1)]
    (problem,) = found.problems
    assert str(problem).startswith("train.txt line 2: ")
    assert expected in f"{problem}\n"


def test_lines_of_the_training_list_may_repeat_an_image_with_its_label(tmp_path):
    content = b"good.jpg: 0\n.//good.jpg: 0\n"
    found = read_list(write(tmp_path, content))
    assert found.entries == [Entry("good.jpg", 0, 1), Entry(".//good.jpg", 0, 2)]
    assert (found.problems, found.repeated) == ([], 1)
    found = read_list(write(tmp_path, content, "val.txt"))
    assert (len(found.entries), found.repeated) == (1, 0)
    (problem,) = found.problems
    assert str(problem) == "val.txt line 2: .//good.jpg: already on line 1"


def test_no_list(tmp_path):
    with pytest.raises(UserError, match=r"no list .*train.txt: expected a line"):
        read_list(tmp_path / "train.txt")
    with pytest.raises(UserError, match=r"train.txt is empty: expected a line"):
        read_list(write(tmp_path, b"\n\r\n"))


def test_classes_over_both_lists(tmp_path):
    lists = {
        "train": read_list(write(tmp_path, b"a.jpg: 0\nb.jpg: 3\nc.jpg: 0\n")).entries,
        "validation": read_list(write(tmp_path, b"d.jpg: 1\na.jpg: 0\n", "val.txt")).entries,
    }
    assert count_classes(lists) == 4
    (gap,) = find_gaps(lists)
    assert "1 of 0..3 occur in neither list, the first is 2" in str(gap)
    lists["validation"] = read_list(write(tmp_path, b"d.jpg: 1\ne.jpg: 2\n", "val.txt")).entries
    assert find_gaps(lists) == []
