"""What an encoder is good for on other data sets: a linear probe, and fine-tuned runs."""
