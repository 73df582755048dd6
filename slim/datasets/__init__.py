"""Image lists, sharded TFRecords, and batches."""
