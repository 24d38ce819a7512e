"""Methods, models, the compiled step, the loop, checkpoints, evaluation and the command line."""
