"""Throughput of every part against its peers and its physical limit."""
