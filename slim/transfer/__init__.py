"""Transfer learning on features: linear classifiers, domain similarity, plots, and the study.

Only the study requires TensorFlow. POT would load it as a backend, which takes three seconds and
half a gigabyte.
"""

import os

os.environ.setdefault("POT_BACKEND_DISABLE_TENSORFLOW", "1")

GAMMA = 0.01  # of the domain similarity
MIN_COUNT = 200  # training images that a source class must have
NORMALIZE_FEATURES = (  # the help of a flag
    "For distances, scale each image's features to length 1, so that no network outweighs another."
)
