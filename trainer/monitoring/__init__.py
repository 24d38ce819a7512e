"""Metrics, terminal display and warnings of a run, and its operations (FLOPs)."""
