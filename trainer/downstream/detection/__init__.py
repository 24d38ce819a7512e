"""Spatio-temporal detection: who does what, where and when."""
