"""The MLflow UI on a store: `cifar-tune ui`."""

import os
import sys
from typing import NoReturn

from cifar_tune.errors import UserError
from cifar_tune.store import Store
from cifar_tune.tracking.address import tracking_url
from cifar_tune.tracking.runs import KIND_TAG, open_client


def serve_ui(store: Store, host: str, port: int) -> NoReturn:
    """Print the UI's addresses, then become the MLflow server on the store; a UserError if a server has the runs."""
    if tracking_url(store).startswith("http"):
        raise UserError(
            "MLFLOW_TRACKING_URI names a server with its own UI; open that address in a browser, or unset the variable."
        )
    print(f"MLflow UI on http://{host}:{port} (Ctrl-C ends it)", file=sys.stderr)
    for experiment in open_client(store).search_experiments():  # which makes the database if there is none
        if KIND_TAG in experiment.tags:  # without it, the first page shows traces and chats
            page = f"experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
            print(f"  the runs of {experiment.name}: http://{host}:{port}/#/{page}", file=sys.stderr)
    os.environ["MLFLOW_BACKEND_STORE_URI"] = tracking_url(store)  # not an argument, because `ps` shows those
    arguments = ["server", "--host", host, "--port", str(port), "--workers", "1"]
    arguments += ["--default-artifact-root", store.artifacts.as_uri()]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])
