"""From a TextBrewer configuration to a spec: read and check with `config`, write with `spec_text`."""
