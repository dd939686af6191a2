"""The command: one file per subcommand, which only prints. Everything heavy is imported inside the functions."""
