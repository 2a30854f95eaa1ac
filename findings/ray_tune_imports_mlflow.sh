#!/usr/bin/env bash
# A search of Ray Tune's with any callback of one's own imports MLflow, though its usage statistics are switched off.
#
# Expected: with RAY_USAGE_STATS_ENABLED=0 nothing is counted, and a logger that nobody asked for is not imported.
# Seen with ray 2.60.0 and mlflow-skinny 3.17.2, Python 3.11: a callback that does nothing is enough. Before the first
# trial Tune counts which of its loggers are among the callbacks, and imports each of them to compare the classes, which
# with MLflow takes the driver about a second. Without a callback it does not. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'ray[tune]==2.60.0' mlflow-skinny==3.17.2
cat > "$folder/program.py" <<'PYTHON'
import sys

import ray
from ray import tune

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
for label, callbacks in (("no callback:", []), ("one callback:", [tune.Callback()])):
    config = tune.RunConfig(storage_path=sys.argv[1], callbacks=callbacks, verbose=0)
    tune.Tuner(lambda config: {"score": 1.0}, run_config=config).fit()
    print(label, "mlflow" in sys.modules, file=sys.stderr)
PYTHON
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" "$folder/program.py" "$folder/results" 2>&1 > /dev/null |
  grep callback: | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
no callback: False
one callback: True
TEXT
