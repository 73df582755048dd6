"""Datasets composed of other datasets: balanced subsets and unions."""
