"""Optimisers, schedules, weight averages and the guard against non-finite steps."""
