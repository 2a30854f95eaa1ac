"""What went wrong with MLflow, in a sentence: what waiting mends, what it does not, and what somebody changed there.

No sentence quotes an error of MLflow's, because those quote the tracking address with its password.
"""

import os
import re

from mlflow.exceptions import MlflowException

from cifar_tune.errors import UserError
from cifar_tune.tracking.address import (
    VARIABLE,
    Failure,
    full_disk,
    is_server,
    newer_database,
    no_credentials,
    server_error,
    shown,
    silence,
    wrong_password,
)

CHANGED = ("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE", "INVALID_STATE")
CREDENTIALS = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")


def diagnose(error: Exception, url: str) -> Failure:
    """The failure that an error from MLflow stands for."""
    if isinstance(error, UserError):
        return Failure("refused", str(error))
    if "database or disk is full" in str(error):
        return full_disk(url)
    origin = type(error).__module__.partition(".")[0]
    if origin == "alembic":  # it does not know the version of the tables
        return Failure("refused", newer_database(url))
    if isinstance(error, ImportError):
        return Failure("refused", f"{shown(url)} needs a package: {error}. Install it, or unset {VARIABLE}.")
    status = getattr(getattr(error, "response", None), "status_code", None)  # of a file that was sent
    if status in (401, 403):
        return Failure("refused", f"MLflow at {shown(url)} takes no files from this user; ask for the right to write.")
    if isinstance(status, int) and is_server(url):
        return server_error(url, status)
    if isinstance(error, OSError) and error.filename and not isinstance(error, ConnectionError | TimeoutError):
        sentence = f"{error.filename} cannot be written ({error.strerror}); MLflow at {shown(url)} keeps files there."
        return Failure("refused", sentence)
    if isinstance(error, OSError) or origin == "sqlalchemy":
        return silence(url)
    if not isinstance(error, MlflowException):
        return Failure("away", f"MLflow at {shown(url)} cannot be written to ({type(error).__name__}).")
    if url.partition(":")[0] == "databricks" and "credential" in str(error).lower():
        return Failure("refused", no_credentials(url))
    if "out-of-date database schema" in str(error):
        command = f'mlflow db upgrade "${VARIABLE}"' if url == os.environ.get(VARIABLE) else f"mlflow db upgrade {url}"
        return Failure("refused", f"{shown(url)} is of an older MLflow; copy it, then run `{command}`.")
    if type(error).__name__ == "UnsupportedModelRegistryStoreURIException":
        return Failure(
            "refused", f"MLflow knows no address like {shown(url)}; let {VARIABLE} begin with http or sqlite."
        )
    return _by_code(error, url)


def _by_code(error: MlflowException, url: str) -> Failure:
    if error.error_code in CREDENTIALS:
        return Failure("refused", wrong_password(url))
    if error.error_code == "PERMISSION_DENIED":
        return Failure(
            "refused", f"MLflow at {shown(url)} does not let this user write; ask for the right, or unset {VARIABLE}."
        )
    if error.error_code in CHANGED:
        return Failure("changed", f"MLflow at {shown(url)} does not accept what is written.")
    status = re.search(r"too many (5\d\d) error responses|failed with error code (\d{3}) ", str(error))
    if status is not None:
        return server_error(url, int(status[1] or status[2]))
    if "not in a valid JSON format" in str(error):
        return Failure("away", f"MLflow at {shown(url)} answers with a page that is not MLflow's.")
    if error.error_code == "TEMPORARILY_UNAVAILABLE" or "API request to" in str(error):
        return silence(url)
    return Failure("away", f"MLflow at {shown(url)} answers with an error ({error.error_code}).")
