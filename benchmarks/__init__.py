"""Measurements side by side: our code, the bare driver doing the same work, and our peers.

``python -m benchmarks`` runs them, ``make bench`` does all the set-up as well. Absolute times
belong to a machine and an hour; what is judged is a ratio of two things that were measured in
turns, in one run. docs/performance.md tells how to read the results.
"""
