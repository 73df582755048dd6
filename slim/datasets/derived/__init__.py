"""Datasets made from other datasets: balanced subsets and unions."""
