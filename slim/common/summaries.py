"""Summaries for TensorBoard, each with the description that it shows beside the tag."""

import io
from collections.abc import Mapping

from PIL import Image

from slim.common.compat import tf


def scalar(tag: str, value: float, description: str) -> tf.Summary.Value:
    """Returns a number."""
    return tf.Summary.Value(tag=tag, simple_value=value, metadata=_metadata(description))


def image(tag: str, content: bytes, description: str) -> tf.Summary.Value:
    """Returns an image that is encoded as a PNG."""
    width, height = Image.open(io.BytesIO(content)).size
    encoded = tf.Summary.Image(encoded_image_string=content, width=width, height=height)
    return tf.Summary.Value(tag=tag, image=encoded, metadata=_metadata(description))


def text(tag: str, markdown: str, description: str) -> tf.Summary.Value:
    """Returns a text in Markdown."""
    metadata = _metadata(description)
    metadata.plugin_data.plugin_name = "text"
    return tf.Summary.Value(tag=tag, tensor=tf.make_tensor_proto(markdown), metadata=metadata)


def describe(serialized: bytes, descriptions: Mapping[str, str], default: str) -> tf.Summary:
    """Returns a summary with descriptions.

    Args:
        serialized: The summary.
        descriptions: Descriptions by tag, or by the part of the tags before the first slash.
        default: The description of other tags.
    """
    summary = tf.Summary.FromString(serialized)
    for value in summary.value:
        of_group = descriptions.get(value.tag.partition("/")[0], default)
        value.metadata.summary_description = descriptions.get(value.tag, of_group)
    return summary


def _metadata(description: str) -> tf.SummaryMetadata:
    return tf.SummaryMetadata(summary_description=description)
