"""MLflow: the runs that show searches, the registry of models, and the UI. Nothing else imports MLflow."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported, which would send it
