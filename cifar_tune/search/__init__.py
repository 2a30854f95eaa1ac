"""The search: Optuna proposes recipes, Ray Tune trains them, the record keeps what came of them."""

import warnings

warnings.filterwarnings("ignore", "Constraints have been set, but", UserWarning)  # the docs say which samplers learn
