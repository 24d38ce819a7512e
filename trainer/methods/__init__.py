"""One file per training method; the loop knows none of them by name."""
