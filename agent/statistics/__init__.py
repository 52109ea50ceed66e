"""Statistics of the judge: pure functions of scores, no runs, no files, no clock."""
