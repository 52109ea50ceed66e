"""Confirm a win of a search on what the search never saw: seeds, text, lengths, rates, sizes."""
