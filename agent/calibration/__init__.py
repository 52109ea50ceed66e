"""Measure how often an acceptance rule is right, on real noise with effects of known size."""
