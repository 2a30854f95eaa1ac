"""After a search: reruns with fresh seeds, verdicts on gains, the held-out test set, and the winner's export."""
