"""Commands that need the training library: one module per subcommand."""
