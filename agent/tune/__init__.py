"""Give any optimizer the same budget for the tuning of its knobs."""
