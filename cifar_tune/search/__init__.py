"""The search: Ray and Optuna have their room here.

space.py           a search-space file, loaded and checked
goal.py            what a search asks for besides accuracy: a cost to make small, limits
limits.py          which recipes are too large to be trained
stand_ins.py       what a space file is asked with, in place of an Optuna trial
encoding.py        sampled values as points
gaussian_process.py a model of a function over such points
forecast.py        where trials will end, from what all have shown
samplers.py        where new recipes come from
storage.py         the record's database, opened
record.py          the Optuna study that is the record of a search
trial.py           what is known of one trial of it
schedulers.py      which trials are stopped early
extend.py          what a search takes over from an older one
driver.py          the rule of a search, without Ray: what comes next, what goes on, how it ended
ends.py            recipes at the ends of every range, for `run --plan`
resources.py       how trials are shared out over cores and GPUs
launch.py          Ray Tune: places trials on workers and carries their reports to the driver
ray_environment.py Ray's switches
trainable.py       what a Ray worker runs
"""

import warnings

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own lines per trial would run into the live display
warnings.filterwarnings("ignore", "Constraints have been set, but", UserWarning)  # the README names who learns of them
