#!/usr/bin/env bash
# Of two values of a metric at the same step and millisecond MLflow shows the larger one, and takes NaN for 0.
#
# Expected: the value that was logged last is the run's, as it is where the last one is a millisecond or a step later.
# Seen with mlflow-skinny 3.17.2 and SQLAlchemy 2.1.8, Python 3.11: with a SQLite database the run has the larger value,
# in whatever order they were logged. NaN is compared as 0: of NaN and 0.5 the run has 0.5, of NaN and -0.5 it has NaN.
# Whoever corrects a value gives it a later timestamp. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow-skinny==3.17.2 sqlalchemy==2.1.8 alembic==1.20.1 pandas==3.1.1
cat > "$folder/program.py" <<'PYTHON'
import logging
import sys

from mlflow import MlflowClient

logging.disable(logging.WARNING)
client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
experiment = client.create_experiment("one", artifact_location=sys.argv[1])
nan = float("nan")
for first, last in ((0.9, 0.1), (0.1, 0.9), (0.5, nan), (nan, 0.5), (-0.5, nan), (nan, -0.5)):
    run = client.create_run(experiment).info.run_id
    for value in (first, last):
        client.log_metric(run, "score", value, timestamp=1000, step=1)
    print("seen:", first, "and then", last, "is", client.get_run(run).data.metrics["score"])
PYTHON
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" "$folder/program.py" "$folder" |
  grep ^seen: | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
seen: 0.9 and then 0.1 is 0.9
seen: 0.1 and then 0.9 is 0.9
seen: 0.5 and then nan is 0.5
seen: nan and then 0.5 is 0.5
seen: -0.5 and then nan is nan
seen: nan and then -0.5 is nan
TEXT
