"""The rules of brain88, one module per group of landmarks."""
