"""From a TextBrewer configuration to a spec: `config` reads and checks the files, `convert` writes the spec."""
