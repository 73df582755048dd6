"""Tests that need a GPU. Without one, all but the smallest are skipped.

For work on the tests themselves, `GPU_TESTS_ON_CPU=1` runs them on the CPU where they can.
"""

import os
import re
import shutil

import pytest

from slim.common.compat import tf
from tests.support import THIS_MACHINE


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "also_on_cpu: a test that runs in a moment on the CPU")


@pytest.fixture(autouse=True)
def machine(request: pytest.FixtureRequest) -> str:
    """A regular expression for the devices that commands say they run on."""
    if tf.config.list_physical_devices("GPU"):
        return r"(?!CPU)\S.* \(\d+\.\d GiB free\)"
    if not (request.node.get_closest_marker("also_on_cpu") or os.environ.get("GPU_TESTS_ON_CPU")):
        driver = ", although nvidia-smi exists: is tensorflow[and-cuda] installed?"
        pytest.skip(f"TensorFlow finds no GPU{driver if shutil.which('nvidia-smi') else ''}")
    return re.escape(THIS_MACHINE)
