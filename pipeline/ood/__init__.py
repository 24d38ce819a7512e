"""Out-of-distribution benchmarks (SCUBA, Confl-FG) from videos and masks of who moves in them."""
