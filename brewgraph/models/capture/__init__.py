"""Features of a forward pass, taken by hooks."""
