"""From image lists to sharded TFRecords to batches."""
