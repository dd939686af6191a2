"""What others get of a finished run: a model card, and the student on a hub or in a folder."""
