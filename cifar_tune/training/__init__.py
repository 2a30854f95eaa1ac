"""One training run; no Ray, no Optuna, no MLflow."""
