"""Networks trained on the procedural dataset: the methods, one run on one seed's videos, what is measured of it."""
