"""Evaluates checkpoints of a run: `python eval.py --checkpoint_path=checkpoints/cub_200`."""

from slim.eval_image_classifier import command

if __name__ == "__main__":
    command()
