"""Recipes: every setting with its meaning, range and default, in one place."""
