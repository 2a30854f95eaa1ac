"""The search: Optuna proposes recipes, Ray Tune trains them, and the record stores the results."""

import warnings

warnings.filterwarnings("ignore", "Constraints have been set, but", UserWarning)  # the docs say which samplers learn
