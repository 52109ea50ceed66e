"""The tests a program goes through, from the cheapest to the one that makes a champion."""
