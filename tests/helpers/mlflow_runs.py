"""What a real MLflow server has of searches."""

from collections import Counter

from mlflow.entities import Run
from mlflow.tracking import MlflowClient


def runs_of(url: str, search: str) -> list[Run]:
    """All active runs of a search, its parent run among them."""
    client = MlflowClient(url)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`cifar_tune.search` = '{search}'", max_results=1000))


def assert_each_trial_once(url: str, search: str, epochs: dict[int, int]) -> None:
    """MLflow has one parent run and, under it, each trial once, with each of its epochs once."""
    client, runs = MlflowClient(url), runs_of(url, search)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "cifar_tune.trial" in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} <= {parent.info.run_id}
    assert Counter(int(run.data.tags["cifar_tune.trial"]) for run in children) == dict.fromkeys(epochs, 1)
    for run in children:
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        number = int(run.data.tags["cifar_tune.trial"])
        assert sorted(metric.step for metric in history) == list(range(1, 1 + epochs[number])), number
        assert run.data.params["model/name"]
