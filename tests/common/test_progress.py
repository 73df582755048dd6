"""Tests of progress in a log file; `test_staging` has the bar in a terminal."""

from slim.common.progress import progress


def test_a_log_file_has_a_plain_line_every_thirty_seconds(capsys, monkeypatch):
    """100,000 images in 70 seconds, of which an earlier run did 20,000."""
    seconds = 0.0
    monkeypatch.setattr("tqdm.std.time", lambda: seconds)
    with progress("validation", 100000, " images", initial=20000) as shown:
        for _ in range(8000):
            seconds += 70 / 8000
            shown.update(10)
    text = capsys.readouterr().err
    assert "\r" not in text
    assert text.splitlines() == [
        "validation:  54% 54290/100000 [00:30<00:39, 1142.86 images/s]",
        "validation:  89% 88580/100000 [01:00<00:09, 1142.86 images/s]",
    ]


def test_short_work_is_not_mentioned_in_a_log_file(capsys):
    assert list(progress("copying", 3, " images", items="abc", delay=1)) == ["a", "b", "c"]
    with progress("download", None, "B") as shown:
        shown.update(1000)
    assert capsys.readouterr() == ("", "")
