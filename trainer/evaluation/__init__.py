"""Bias protocols, Grad-CAM, and results as tables and files."""
