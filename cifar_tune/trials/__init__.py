"""The trials of a search, and how they are read from a store; nothing here imports torch or Ray."""

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its line for each trial would disturb the live display
