"""One training run. It knows neither Ray nor Optuna nor MLflow."""
