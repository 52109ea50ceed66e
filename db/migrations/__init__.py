"""The steps from an empty database to the tables of today.

They lead forward only: a lineage is never made to fit an older program.
"""
