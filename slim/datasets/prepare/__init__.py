"""Preparation of datasets: from official archives or folders of images to lists."""
