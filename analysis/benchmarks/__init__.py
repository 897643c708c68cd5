"""Benchmarks behind ``make bench``: medians of interleaved repeats, ratios against a peer in the same run."""
