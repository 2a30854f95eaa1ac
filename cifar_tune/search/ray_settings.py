"""Environment variables that Ray reads when it is imported; this module itself imports no Ray."""

import os
import secrets
from pathlib import Path

SWITCHES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # otherwise each worker under `uv run` would build its own environment
    "RAY_AIR_NEW_OUTPUT": "0",  # the live display is ours
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker
    "RAY_worker_register_timeout_seconds": "240",  # Ray would end workers that import for 60 s, and start others
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # if a stopped trial's thread takes longer, its worker's next trial fails
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # csv, json and TensorBoard files per trial, which nothing reads
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ray_tune.py has its own
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the record is Optuna's study; Tune's own state is never restored
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they are in the record
}


LOOPBACK_ONLY = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # "no cluster", so Ray uses the loopback address


MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
OWN = "cifar-tune-"  # begins the token of a Ray of our own
RETRIES = ("RAY_NUM_REDIS_GET_RETRIES", "5")  # of a second each, instead of 20, where a cluster refuses this process


def configure_ray(*, local: bool) -> None:
    """Set the variables, before Ray is imported; the servers of a `local` Ray listen on 127.0.0.1 only."""
    os.environ.update(SWITCHES)
    name, value = LOOPBACK_ONLY
    if local:
        os.environ[name] = value
        # Otherwise Ray would leave a token in the home folder, which every `ray start` after that asks everybody for.
        os.environ.setdefault(MODE, "token")
        os.environ.setdefault(TOKEN, OWN + secrets.token_hex(32))
        return
    os.environ.pop(name, None)
    os.environ.setdefault(*RETRIES)
    if os.environ.get(TOKEN, "").startswith(OWN):
        del os.environ[TOKEN], os.environ[MODE]
    if any(os.environ.get(place) for place in (TOKEN, "RAY_AUTH_TOKEN_PATH")) or _home_token().is_file():
        os.environ.setdefault(MODE, "token")  # Ray sends a token to a cluster with an address only where this is set


def _home_token() -> Path:
    return Path("~/.ray/auth_token").expanduser()
