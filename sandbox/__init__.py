"""Whether and how candidate code runs: preflight, the jail and the evaluation worker."""
