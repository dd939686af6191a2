"""Which rows make a batch, and how they become tensors."""
