"""From image lists to sharded TFRecords."""
