"""Rank well-known optimizers, each tuned with the same budget."""
