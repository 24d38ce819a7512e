"""Atomic checkpoint folders, exact resume, and stopping on a signal."""
