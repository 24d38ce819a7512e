"""What a run tells: metrics, the line on the terminal, warnings in words, FLOPs."""
