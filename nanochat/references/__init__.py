"""Well-known optimizers, each a complete program, to compare others with.

A program imports nothing of ours but `nanochat.contract`, so that its text is all there is to it.
Knobs are as published, except for the learning rates, which published ones leave to the user, and
except where a program says so. Rules come from maintained libraries.
"""
