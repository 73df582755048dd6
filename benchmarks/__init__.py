"""How fast the project is, beside peers and limits measured in the same run.

`python -m benchmarks` measures; a module a subject, each with `measure(settings)`.
"""
