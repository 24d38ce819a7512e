"""What a network's features are good for beyond the classes it was trained on."""
