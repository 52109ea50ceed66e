"""The search: what to try, whether it worked, when to stop, and the commands people type."""
