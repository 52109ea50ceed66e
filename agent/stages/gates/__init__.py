"""Tests of what isolation cannot stop: does a score come from what it should come from?"""
