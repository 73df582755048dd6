"""Several views of an image, whose probabilities evaluation averages.

The crops are those of Szegedy et al., Going Deeper with Convolutions, 2015, section 7: 1 is the
centre, 5 the centre and the corners, 10 these and their mirror images, and 12 adds the whole image
and its mirror image.
"""

from collections.abc import Callable

from slim.common.compat import tf

NUM_CROPS = (1, 5, 10, 12)


def stack_views(
    image: tf.Tensor,
    begin: tf.Tensor,
    size: tf.Tensor,
    num_crops: int,
    resize: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Returns the views of an image.

    Args:
        image: `[height, width, 3]`.
        begin: Begin of the central crop, int32 `[2]`, rows and columns.
        size: Size of every crop except the whole image, int32 `[2]`.
        num_crops: One of `NUM_CROPS`.
        resize: The function that resizes a part of the image to the size of the views.

    Returns:
        float32 `[num_crops, height, width, 3]`.
    """
    bottom, right = tf.unstack(tf.shape(image)[:2] - size)
    begins = [begin]
    if num_crops > 1:
        begins += [[0, 0], [0, right], [bottom, 0], [bottom, right]]
    size = tf.concat([size, [3]], 0)
    crops = [tf.slice(image, tf.concat([place, [0]], 0), size) for place in begins]
    if num_crops == 12:
        crops.append(image)
    views = tf.stack([resize(crop) for crop in crops])
    return tf.concat([views, tf.reverse(views, [2])], 0) if num_crops >= 10 else views
