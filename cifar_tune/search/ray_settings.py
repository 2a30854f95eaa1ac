"""Environment variables that Ray reads when it is imported; this module itself imports no Ray."""

import os

SWITCHES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # otherwise each worker under `uv run` would build its own environment
    "RAY_AIR_NEW_OUTPUT": "0",  # the live display is ours
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # if a stopped trial's thread takes longer, its worker's next trial fails
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # csv, json and TensorBoard files per trial, which nothing reads
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ray_tune.py has its own
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the record is Optuna's study; Tune's own state is never restored
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they are in the record
}


LOOPBACK_ONLY = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # "no cluster", so Ray uses the loopback address


def configure_ray(*, local: bool) -> None:
    """Set the variables, before Ray is imported; the servers of a `local` Ray listen on 127.0.0.1 only."""
    os.environ.update(SWITCHES)
    name, value = LOOPBACK_ONLY
    if local:
        os.environ[name] = value
    else:
        os.environ.pop(name, None)
