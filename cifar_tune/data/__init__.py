"""Data sets: found, verified, decoded once, split; no torch."""
