"""The lineage: records of everything tried, their SQL store and their git history."""
