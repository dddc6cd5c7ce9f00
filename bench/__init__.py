"""Benchmarks: ratios measured in one run on one machine, never assertions in tests."""
