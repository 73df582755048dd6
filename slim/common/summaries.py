"""Summaries for TensorBoard, each with the description that it shows next to the tag."""

import io
from collections.abc import Mapping

from PIL import Image

from slim.common.compat import tf

# The plugin of TensorBoard and the class of data by kind of value. Without them, TensorBoard's data
# server ignores descriptions.
_PLUGINS = {
    "simple_value": ("scalars", "DATA_CLASS_SCALAR"),
    "image": ("images", "DATA_CLASS_BLOB_SEQUENCE"),
    "histo": ("histograms", "DATA_CLASS_TENSOR"),
    "tensor": ("text", "DATA_CLASS_TENSOR"),
}


def scalar(tag: str, value: float, description: str) -> tf.Summary.Value:
    return _described(tf.Summary.Value(tag=tag, simple_value=value), description)


def image(tag: str, content: bytes, description: str) -> tf.Summary.Value:
    """Returns an image that is encoded as a PNG."""
    width, height = Image.open(io.BytesIO(content)).size
    encoded = tf.Summary.Image(encoded_image_string=content, width=width, height=height)
    return _described(tf.Summary.Value(tag=tag, image=encoded), description)


def text(tag: str, markdown: str, description: str) -> tf.Summary.Value:
    """Returns a text in Markdown."""
    value = tf.Summary.Value(tag=tag, tensor=tf.make_tensor_proto(markdown))
    return _described(value, description)


def describe(serialized: bytes, descriptions: Mapping[str, str], default: str) -> tf.Summary:
    """Returns a serialized summary of scalars, images and histograms with descriptions.

    They are found by the tag, or by the part before its first slash; other tags get the default.
    """
    summary = tf.Summary.FromString(serialized)
    for value in summary.value:
        of_group = descriptions.get(value.tag.partition("/")[0], default)
        _described(value, descriptions.get(value.tag, of_group))
    return summary


def _described(value: tf.Summary.Value, description: str) -> tf.Summary.Value:
    """Sets the description of a value, and returns the value."""
    plugin, data_class = _PLUGINS[value.WhichOneof("value")]
    metadata = tf.SummaryMetadata(summary_description=description, data_class=data_class)
    metadata.plugin_data.plugin_name = plugin
    value.metadata.CopyFrom(metadata)
    return value
