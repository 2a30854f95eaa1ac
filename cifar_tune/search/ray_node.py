"""Ray on this machine with only what a search uses: its scheduler, its store of states, and workers that are warm.

Ray itself also starts five Python programs: for a cluster's autoscaler, a dashboard, logs that nobody is shown, and two
agents, for which its scheduler waits. Together they take as long as torch's import, and no public option leaves them
out. What is replaced here may have other names in other versions of Ray, where ray_cluster.py starts all of it.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STAND_IN = Path(__file__).with_name("ray_stand_in.py")
WARM = "cifar_tune.search.ray_warm"  # what a worker imports before its first trial
PORTS = ("METRICS_AGENT", "METRICS_EXPORT", "DASHBOARD_AGENT_LISTEN", "RUNTIME_ENV_AGENT")  # for which Ray waits
# Ray's scheduler begins to look for its object store before that listens, and would look again after a second.
CONNECTING = {"raylet_client_connect_timeout_milliseconds": 50, "raylet_client_num_connect_attempts": 200}
NO_PORT = -1  # as Ray's agents say that they have none

Room = Mapping[str, float]  # like `{"CPU": 16, "GPU": 1}`


@contextmanager
def small_node(count_workers: Callable[[Room], int] | None) -> Iterator[dict[str, Any]]:
    """Let `ray.init` start no more than a search uses, with so many warm workers for this room; what to call it with.

    Without a number, workers start when they are needed, and are not warm.
    """
    from ray import _raylet
    from ray._private import node, services

    raylet: Any = _raylet
    ports = [getattr(raylet, f"{name}_PORT_NAME") for name in PORTS]
    start_process = services.start_ray_process

    class SmallNode(node.Node):  # type: ignore[misc]
        """Ray's processes, without those that nobody uses."""

        def start_monitor(self) -> None:
            """Do nothing: no machine joins or leaves."""

        def start_log_monitor(self) -> None:
            """Do nothing: the record has the workers' errors."""

        def start_api_server(self, **_: object) -> None:
            """Start no dashboard."""
            self._webui_url = ""

        def start_raylet(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
            """Start the scheduler with stand-ins for its agents, and say for these that they have no ports."""
            room = self.get_resource_and_label_spec()
            num_workers = count_workers({"CPU": room.num_cpus, "GPU": room.num_gpus or 0}) if count_workers else 0
            changes = {
                "dashboard_agent_command": _stand_in(),
                "runtime_env_agent_command": _stand_in(),
                "num_prestart_python_workers": str(num_workers),
            }
            for port in ports:
                raylet.persist_port(self._session_dir, self._node_id, port, NO_PORT)

            def start(command: Sequence[str], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
                return start_process([_changed(word, changes) for word in command], *args, **kwargs)

            with _replaced(services, "start_ray_process", start):
                super().start_raylet(*args, **kwargs)

    with _replaced(node, "Node", SmallNode):
        yield {
            "_system_config": {
                "enable_worker_prestart": True,  # with the scheduler, and not only once this process has joined
                "preload_python_modules": [WARM] if count_workers else [],
                "enable_metrics_collection": False,
                **CONNECTING,
            }
        }


@contextmanager
def small_tune() -> Iterator[None]:
    """Let Tune do no more than a search needs, in workers that were started before.

    Tune would give each trial an environment, and so a new worker.

    The variables of that environment are those of this process, which the workers of its own Ray have anyway. Nor are
    there placement groups, for several machines: each runs a task first, which takes a warm worker from the trials.
    Workers that wait for a trial are kept, of which Tune would keep one. Tune would also import MLflow, to count which
    loggers are in use.
    """
    import ray
    from ray.air._internal import usage
    from ray.air.execution import FixedResourceManager
    from ray.tune.execution import tune_controller
    from ray.tune.execution.class_cache import _ActorClassCache
    from ray.tune.utils.object_cache import _ObjectCache

    class KeepAll(_ObjectCache):  # type: ignore[misc]
        """Tune's free workers. It keeps as many as there are trials that wait for a worker; here workers wait."""

        def cache_object(self, key: object, worker: object) -> bool:
            """Keep the worker."""
            self._cached_objects[key].append(worker)
            self._num_cached_objects += 1
            return True

        def flush_cached_objects(self, force_all: bool = False) -> Iterator[object]:
            """Give up all workers or none."""
            return super().flush_cached_objects(force_all) if force_all else iter(())

    def get(self: Any, trainable: type) -> Any:  # noqa: ANN401 - Ray's
        if trainable not in self._cache:
            self._cache[trainable] = ray.remote(trainable)
        return self._cache[trainable]

    with (
        _replaced(_ActorClassCache, "get", get),
        _replaced(tune_controller, "PlacementGroupResourceManager", FixedResourceManager),
        _replaced(tune_controller, "_ObjectCache", KeepAll),
        _replaced(usage, "tag_callbacks", lambda callbacks: False),
    ):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:  # noqa: ANN401 - a module or a class
    """Another attribute of a module or a class of Ray's within the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _stand_in() -> str:
    return subprocess.list2cmdline([sys.executable, "-I", "-S", str(STAND_IN)])


def _changed(word: str, changes: Mapping[str, str]) -> str:
    """An option `--name=value` with another value, if there is one."""
    option, _, _ = word.partition("=")
    value = changes.get(option.removeprefix("--"))
    return word if value is None else f"{option}={value}"
