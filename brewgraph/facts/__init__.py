"""What is known of models and data before they are loaded, and what of it is remembered on disk."""
