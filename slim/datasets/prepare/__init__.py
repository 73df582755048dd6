"""Preparation of datasets: from official archives, folders or tables to lists."""
