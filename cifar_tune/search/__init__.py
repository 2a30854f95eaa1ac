"""The search: Ray and Optuna live here and nowhere else.

space.py     a search-space file, loaded and checked
record.py    the Optuna study that is the record of a search
rungs.py     which trials are stopped early
trainable.py what a Ray worker runs
launch.py    Ray Tune: hands out trials and tells the record what became of them
"""

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own lines per trial would run into the live display
