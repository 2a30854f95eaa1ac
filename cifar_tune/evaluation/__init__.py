"""What comes after a search: fresh seeds, verdicts, the held-out test set, export."""
