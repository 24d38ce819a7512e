"""Training runs on the procedural dataset that benchmarks share: methods, one run on a seed's videos, measures."""
