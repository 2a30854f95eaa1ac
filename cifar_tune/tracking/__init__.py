"""MLflow's room: the runs of a search, and the registry of models."""
