"""Training of BrainLandmarks networks: synthetic heads, losses, the training loop, evaluation."""
