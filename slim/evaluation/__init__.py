"""Evaluation: the evaluator, its predictions, and accuracy over the long tail."""
