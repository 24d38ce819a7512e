"""What can be converted: class folders, published lists, tars; local or remote."""
