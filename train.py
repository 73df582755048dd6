"""Trains or fine-tunes a network: `python train.py --dataset_name=cub_200`."""

from slim.train_image_classifier import command

if __name__ == "__main__":
    command()
