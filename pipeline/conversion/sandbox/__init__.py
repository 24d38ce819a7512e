"""Decoding in processes of their own: a pool, the worker it starts, the tasks it sends."""
