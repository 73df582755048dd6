"""From features to what the paper says about them: classifier, domain similarity, plots.

Nothing here needs TensorFlow but the study, which extracts and trains. POT would load it, at three
seconds and half a gigabyte, only to offer it as a backend.
"""

import os

os.environ.setdefault("POT_BACKEND_DISABLE_TENSORFLOW", "1")
