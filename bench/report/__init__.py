"""Pages and pictures drawn from committed result files."""
