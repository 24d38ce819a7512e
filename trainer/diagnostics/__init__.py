"""What else can be measured on a trained model or a dataset: scene bias, and the ratios of HAT."""
