"""The estimate of the demo's duration."""

import re

from demo import duration
from tests.support import invoke


def test_a_few_steps_of_a_small_training_tell_the_minutes(monkeypatch):
    monkeypatch.setattr(duration, "SIZE", 75)
    monkeypatch.setattr(duration, "BATCH", 2)
    monkeypatch.setattr(duration, "LOADING", (0, 0))
    monkeypatch.setattr(duration, "TRAINING", (0, 6000))
    done, full = invoke(duration), invoke(duration, "--full")
    assert re.fullmatch(r"about 1 min on this machine: 20 steps .* took \d+\.\d s\n", done.output)
    # 100 minutes per second.
    minutes, seconds = re.fullmatch(r"about (\d+) min .* took (.*) s\n", full.output).groups()
    assert abs(int(minutes) - 100 * float(seconds)) <= 5 + 0.5
