"""From a TextBrewer configuration to a spec: `reading` files, `settings` checked, `equations`, `spec` as text."""
