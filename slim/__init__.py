"""Large scale fine-grained categorization and domain-specific transfer learning, on TF-Slim.

`load_classifier` loads a checkpoint for use from Python, see `slim.serving.classifier`.
"""

from typing import Any

__all__ = ["load_classifier"]


def __getattr__(name: str) -> Any:
    # Commands that do not need TensorFlow do not wait for it.
    if name == "load_classifier":
        from slim.serving.classifier import load_classifier

        return load_classifier
    raise AttributeError(f"module 'slim' has no attribute '{name}'")
