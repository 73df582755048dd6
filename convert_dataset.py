"""Images and lists to sharded TFRecords: `python convert_dataset.py --dataset_name=cub_200`."""

from slim.datasets import convert

if __name__ == "__main__":
    convert.command()
