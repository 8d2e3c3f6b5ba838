"""From MRML nodes to files that the worker reads."""
