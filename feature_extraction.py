"""Extracts features of images: `python feature_extraction.py --dataset_name=cub_200`."""

from slim.feature_extraction import command

if __name__ == "__main__":
    command()
