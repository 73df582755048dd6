"""A session for graphs that are run once."""

from slim.common.compat import tf


def plain_session() -> tf.Session:
    """Returns a session that runs graphs as they are: optimizing one takes longer than a run."""
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.Session(config=config)
