"""What the panels of all modules share."""
