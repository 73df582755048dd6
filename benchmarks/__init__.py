"""Measures the speed of the project against peers and limits in the same run.

`python -m benchmarks` runs all subjects; each is a module with a function `measure(settings)`.
"""
