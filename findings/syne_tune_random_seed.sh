#!/usr/bin/env bash
# Syne Tune's `random_seed` decides no configuration of a random search; numpy's global generator does.
#
# Expected: two schedulers with the same `random_seed` suggest the same configurations, and two with other ones do not.
# Seen with syne-tune 0.16.0, Python 3.11: with the same seed and another state of numpy's generator all suggestions
# differ, and with another seed and the same state of it they are the same. Whoever wants to repeat a search calls
# `numpy.random.seed`. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet syne-tune==0.16.0
cat > "$folder/program.py" <<'PYTHON'
import logging

import numpy as np
from syne_tune.config_space import uniform
from syne_tune.optimizer.baselines import RandomSearch

logging.disable(logging.WARNING)


def suggestions(random_seed, state_of_numpy):
    np.random.seed(state_of_numpy)
    scheduler = RandomSearch({"x": uniform(0, 1)}, metrics=["score"], random_seed=random_seed)
    return [scheduler.suggest().config["x"] for _ in range(5)]


first = suggestions(random_seed=1, state_of_numpy=1)
print("again:", suggestions(random_seed=1, state_of_numpy=1) == first)
print("same random_seed, numpy seeded otherwise:", suggestions(random_seed=1, state_of_numpy=2) == first)
print("other random_seed, numpy seeded alike:", suggestions(random_seed=2, state_of_numpy=1) == first)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/program.py" | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
again: True
same random_seed, numpy seeded otherwise: False
other random_seed, numpy seeded alike: True
TEXT
