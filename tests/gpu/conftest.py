"""Tests of what only a GPU shows. Without one they skip.

For work on the tests themselves, `GPU_TESTS_ON_CPU=1` runs on the CPU what can run there.
"""

import os
import re
import shutil

import pytest

from slim.common.compat import tf
from tests.support import THIS_MACHINE


@pytest.fixture(scope="session", autouse=True)
def machine() -> str:
    """A regular expression for the devices that commands say they run on."""
    if os.environ.get("GPU_TESTS_ON_CPU"):
        return re.escape(THIS_MACHINE)
    if not tf.config.list_physical_devices("GPU"):
        driver = "although nvidia-smi exists: is tensorflow[and-cuda] installed?"
        pytest.skip(f"TensorFlow finds no GPU{', ' + driver if shutil.which('nvidia-smi') else ''}")
    return r"(?!CPU)\S.* \(\d+\.\d GiB free\)"
