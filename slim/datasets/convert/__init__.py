"""Conversion of image lists to sharded TFRecords."""
