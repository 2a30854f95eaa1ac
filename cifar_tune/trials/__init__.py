"""What is known of a trial, and how it is read from a store; no torch, no Ray."""

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own line for each trial would run into the live display
