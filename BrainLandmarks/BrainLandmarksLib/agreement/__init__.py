"""How far raters agree: distances, reliability, guidelines, report."""
