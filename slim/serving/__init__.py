"""Classifiers of encoded images, and their export."""
