"""Processes that decode untrusted videos behind fences: how one is started, what it gives up, how it is talked to."""
