"""How convert, predict and ood all see a video: opening, decoding, its clock, its pictures as people see them."""
