"""The procedural biased dataset "motions": what a video shows, and its files."""
