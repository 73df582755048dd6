"""Tests of the bounds of the flags of training."""

import re

import pytest
from absl import flags

from slim import train_image_classifier as training
from tests.support import invoke

DECAY_RATES = ("adadelta_rho", "batch_norm_decay", "momentum", "rmsprop_decay", "rmsprop_momentum")
STRENGTHS = (
    "end_learning_rate",
    "ftrl_initial_accumulator_value",
    "ftrl_l1",
    "ftrl_l2",
    "learning_rate",
    "learning_rate_decay_factor",
    "opt_epsilon",
    "weight_decay",
)
REFUSED = {
    **dict.fromkeys(DECAY_RATES, ("-0.1", "1.5", "nan")),
    **dict.fromkeys(STRENGTHS, ("-1", "inf", "nan")),
    "class_weights_beta": ("-0.1", "1", "nan"),
    "adam_beta1": ("-0.1", "1", "2", "nan"),
    "adam_beta2": ("-0.1", "1", "2", "nan"),
    "adagrad_initial_accumulator_value": ("0", "-1", "inf"),
    "ftrl_learning_rate_power": ("0.5", "-inf"),
    "label_smoothing": ("-0.1", "1.5", "nan"),
    "batch_size": ("0", "1000000000"),
    "cluster_timeout_secs": ("0", str(10**18)),
    "max_number_of_epochs": ("0", "-1", "1e300", "1e400", "nan"),
    "moving_average_decay": ("-0.1", "2", "nan"),
    "num_clones": ("0", "1000000000"),
    "num_epochs_per_decay": ("0", "-1", "1e308", "inf", "nan"),
    "num_preprocessing_threads": ("0", "1000000000"),
    "num_readers": ("0", "1000000000"),
    "replicas_to_aggregate": ("0", str(10**20)),
    "seed": ("-1", "1e3", str(2**31)),
}
ACCEPTED = [
    *(f"--{name}={value}" for name in DECAY_RATES for value in (0, 1)),
    *(f"--{name}={value}" for name in STRENGTHS for value in (0, 100)),
    "--adam_beta1=0",
    "--ftrl_learning_rate_power=0",
    "--label_smoothing=1",
    "--max_number_of_epochs=0.01",
    "--moving_average_decay=0",
    "--moving_average_decay=1",
    "--num_epochs_per_decay=0.001",
    f"--seed={2**31 - 1}",
]


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_values_are_refused_in_one_line(name):
    for value in REFUSED[name]:
        code, output, error = invoke(training, f"--{name}={value}")
        assert (code, output) == (1, ""), value
        assert re.fullmatch(rf"error: flags? .*{name}=.*: .*(expected|range|invalid).*\n", error)


def test_values_with_a_meaning_are_accepted():
    for given in ([flag] for flag in ACCEPTED):
        values = flags.FlagValues()
        training.define_flags(values)
        values(["train", *given])
    # A fixed rate does not decay.
    values(["train", "--num_epochs_per_decay=0", "--learning_rate_decay_type=fixed"])
