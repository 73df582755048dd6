"""One kill of fast commands, and two of them at once: `python -m tests.kills` tries many more."""

import signal
from collections.abc import Iterator
from random import Random

import pytest

from tests.kills.kinds import Inputs, all_kinds, make_inputs
from tests.kills.running import Runs, run_undisturbed, try_together
from tests.loopback import Loopback

FAST = ("conversion", "preparation", "union", "download", "extraction")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Iterator[Inputs]:
    with Loopback() as server:
        yield make_inputs(tmp_path_factory.mktemp("inputs"), server, num_images=10)


@pytest.mark.parametrize(
    "kind", [k for k in all_kinds(steps=5) if k.name in FAST], ids=lambda kind: kind.name
)
def test_killed_or_started_twice_a_command_ends_in_the_undisturbed_result(kind, inputs, tmp_path):
    undisturbed = run_undisturbed(kind, inputs, tmp_path / "undisturbed")
    runs = Runs(kind, inputs, tmp_path / "killed")
    (process,), _ = runs.start([undisturbed.operations[0] * 2 // 3], whole_group=True)
    assert process.wait() == -signal.SIGKILL, process.output
    runs.finish()
    assert kind.compare(undisturbed.folder, runs.folder) == []
    runs = Runs(kind, inputs, tmp_path / "both")
    _, differences = try_together(runs, undisturbed, Random(0))
    assert differences == []
