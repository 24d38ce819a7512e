"""Trained networks in use: exported files, and predictions for single videos."""
