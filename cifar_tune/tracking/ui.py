"""The MLflow UI on a store: `cifar-tune ui`."""

import os
import sys
from typing import NoReturn

from cifar_tune.errors import UserError
from cifar_tune.store import Store
from cifar_tune.tracking.runs import KIND_TAG, open_client, tracking_url


def serve_ui(store: Store, host: str, port: int) -> NoReturn:
    """Say where and become the MLflow server on the store; a UserError where another server has the runs already."""
    if tracking_url(store).startswith("http"):
        raise UserError(
            "MLFLOW_TRACKING_URI names a server that has a UI of its own; open it in a browser, or unset it."
        )
    print(f"MLflow UI on http://{host}:{port} (Ctrl-C ends it)", file=sys.stderr)
    for experiment in open_client(store).search_experiments():  # makes the database if there is none
        if KIND_TAG in experiment.tags:  # its first page is of traces and chats
            page = f"experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
            print(f"  the runs of {experiment.name}: http://{host}:{port}/#/{page}", file=sys.stderr)
    os.environ["MLFLOW_BACKEND_STORE_URI"] = tracking_url(store)  # not an argument, which `ps` would show
    arguments = ["server", "--host", host, "--port", str(port), "--workers", "1"]
    arguments += ["--default-artifact-root", store.artifacts.as_uri()]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])
