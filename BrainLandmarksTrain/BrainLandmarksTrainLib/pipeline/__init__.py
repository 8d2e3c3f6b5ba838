"""From a recipe to a model: prepare, train, finish; fine-tuning and ablation."""
