"""MLflow's room: the runs of a search, and the registry of models."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported, which would send it
