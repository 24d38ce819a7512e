"""One file a benchmark: what is run, and its rows."""
