"""Benchmarks: `python -m bench.run` in the repository, or `structloss bench`. Not part of the installed package."""
