"""MLflow: the runs that show searches, the registry of models, and the UI. Nothing else imports MLflow."""

import os

# MLflow reads these when it is imported or at each request; what the user has set stays.
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; by default 120
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the outbox tries again; by default seven times over four minutes
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout has results alone
