"""Damaged input through every entrance: how it is made, and what may come of it.

`mutate` damages bytes, `seeds` holds the valid files it begins with, `entrances` sends what came
out and judges the answer, `run` counts. `scripts/fuzz` does it by the thousand.
"""
