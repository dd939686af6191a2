"""From a TextBrewer configuration to a spec: read `config_files`, check `config`, write `equations` and `spec_text`."""
