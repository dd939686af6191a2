"""Models on fake tensors: shapes, reach and parameters without weights."""
