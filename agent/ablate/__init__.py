"""Take a winner apart, and find out which of its parts do anything."""
