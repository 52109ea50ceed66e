"""Check logs of the public fixed-data optimizer benchmark, and lend their noise to calibration."""
