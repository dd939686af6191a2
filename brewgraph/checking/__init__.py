"""Judges a spec: names, shapes, inputs, and whether models and data agree. No weight is loaded."""
