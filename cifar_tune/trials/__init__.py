"""What is known of a trial, and how it is read from a store; no torch, no Ray."""
