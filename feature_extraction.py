"""Images to features: `python feature_extraction.py --dataset_name=cub_200`; see --help."""

from slim.feature_extraction import command

if __name__ == "__main__":
    command()
