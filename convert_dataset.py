"""Converts image lists to sharded TFRecords: `python convert_dataset.py --dataset_name=cub_200`."""

from slim.convert_dataset import command

if __name__ == "__main__":
    command()
