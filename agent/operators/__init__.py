"""Bounded mutations of the optimizer's knobs: the proposer that needs no model."""
