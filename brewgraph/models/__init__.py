"""Models: decided from a configuration, run on fake tensors, loaded; what they are made of, and hooks into them."""
