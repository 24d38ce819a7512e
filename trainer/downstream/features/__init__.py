"""Features of long videos, window by window, from a trained network."""
