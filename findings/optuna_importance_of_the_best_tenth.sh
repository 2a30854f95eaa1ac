#!/usr/bin/env bash
# Optuna's importances rank first what decides among the best trials, not what decides most of the scores.
#
# Expected: `get_param_importances` without arguments ranks first what explains the variance of the values, as it did with
# fANOVA, the default of earlier versions. And where all values are equal, no parameter has a share.
# Seen with optuna 5.0.0 and scikit-learn 1.9.1, Python 3.11: with the default, PED-ANOVA, a parameter behind 99.9 % of
# the variance has the smaller share. Half of all trials are on its good side, and only the best tenth counts. fANOVA
# gives it all. Where all values are equal each of n parameters has the share 1 / n. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optuna==5.0.0 scikit-learn==1.9.1
cat > "$folder/program.py" <<'PYTHON'
import random

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(value):
    study, rng = optuna.create_study(direction="maximize"), random.Random(0)
    ranges = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("large", "small")}
    for _ in range(500):
        params = {name: rng.random() for name in ranges}
        study.add_trial(optuna.trial.create_trial(value=value(**params), params=params, distributions=ranges))
    return study


def percent(importances):
    return {name: f"{share:.0%}" for name, share in sorted(importances.items())}


by_both = study_of(lambda large, small: 0.9 * (large > 0.5) + 0.01 * small)
print("default:", percent(get_param_importances(by_both)))
print("fANOVA:", percent(get_param_importances(by_both, evaluator=FanovaImportanceEvaluator(seed=0))))
print("all equal:", percent(get_param_importances(study_of(lambda large, small: 0.5))))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/program.py" | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
default: {'large': '29%', 'small': '71%'}
fANOVA: {'large': '100%', 'small': '0%'}
all equal: {'large': '50%', 'small': '50%'}
TEXT
