"""The tasks of `unstill bench downstream`: what each makes of an encoder's frozen features, and how that is scored."""
