#!/usr/bin/env bash
# A trial of Ray Tune whose score is NaN stays RUNNING for ever in the study of Ray's OptunaSearch.
#
# Expected: the trial is FAIL, as in `study.optimize` and as where the trial raises an error, or COMPLETE as others are.
# Seen with ray 2.60.0 and optuna 5.0.0, Python 3.11: the trial is over for Tune, without an error, but its state in the
# study is RUNNING. Optuna refuses the NaN, and OptunaSearch only logs that. No sampler learns that it diverged, and
# those that keep away from running trials keep away from it. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray[tune]==2.60.0' optuna==5.0.0
cat > "$folder/program.py" <<'PYTHON'
import sys

import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch


def train(config):
    if config["kind"] == "error":
        raise RuntimeError("It failed.")
    tune.report({"score": {"good": 0.5, "diverged": float("nan")}[config["kind"]]})


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
kinds = ["good", "error", "diverged"]
search = OptunaSearch(
    {"kind": tune.choice(kinds)}, metric="score", mode="max", points_to_evaluate=[{"kind": kind} for kind in kinds]
)
results = tune.Tuner(
    train,
    tune_config=tune.TuneConfig(search_alg=search, num_samples=len(kinds), max_concurrent_trials=1),
    run_config=tune.RunConfig(storage_path=sys.argv[1], verbose=0),
).fit()
has_error = {result.config["kind"]: result.error is not None for result in results}
for trial in search._ot_study.trials:
    kind = trial.params["kind"]
    print("seen:", kind, "error in Tune:", has_error[kind], "in Optuna:", trial.state.name, file=sys.stderr)
PYTHON
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" "$folder/program.py" "$folder/results" 2>&1 > /dev/null |
  grep ^seen: | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
seen: good error in Tune: False in Optuna: COMPLETE
seen: error error in Tune: True in Optuna: FAIL
seen: diverged error in Tune: False in Optuna: RUNNING
TEXT
