"""Networks by name, and what a gradient penalty asks of them."""
