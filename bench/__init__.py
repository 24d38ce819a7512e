"""Throughput of every part beside its peers and its physical limit."""
