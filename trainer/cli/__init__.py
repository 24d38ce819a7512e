"""The command line: one file a family of commands; `main.py` has the list."""
