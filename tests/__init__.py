import os
import sys

from slim.common.command_line import set_environment

# Tests run in parallel and their tensors are small. The variables count when a library is loaded.
for _name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# TensorFlow is as quiet as in a command.
set_environment()

# Ray and Jupyter import jsonschema, which spends a second on this module unless it is missing.
sys.modules["rfc3987_syntax"] = None
