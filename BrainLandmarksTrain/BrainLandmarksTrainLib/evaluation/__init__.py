"""How far from the truth: metrics, comparisons, reports, robustness."""
