"""From a TextBrewer configuration to a spec: `reading` its files, `settings` checked, `equations`, the `spec` as text."""
