"""From a syntax tree to a recipe: names, axes, calls, statements."""
