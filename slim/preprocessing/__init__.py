"""Preprocessing of images for the networks."""
