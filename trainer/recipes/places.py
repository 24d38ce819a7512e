"""Where the recipes look for data sets and write runs, relative to the working directory."""

from pathlib import Path

DATA, OUT = Path("data"), Path("runs")
