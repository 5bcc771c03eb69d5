"""`orinspect bench`: how fast a bundle runs on this machine, under which conditions, and whether the run can be trusted.

The result is a plain dictionary, what JSON holds of it: docs/bench.md describes its keys.
"""
