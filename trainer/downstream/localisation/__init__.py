"""Temporal localisation: which action happens from when to when, learned from annotated videos."""
