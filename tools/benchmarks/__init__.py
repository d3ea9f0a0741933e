"""The benchmarks that tools/benchmark.py runs, one concern a module."""
