"""Rendered heads: label maps, deformed copies, generator, simulated raters."""
