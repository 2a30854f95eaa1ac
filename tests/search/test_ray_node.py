"""Ray on this machine: few processes, warm workers that trials use, and all of Ray where that fails."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers.command_line import GOOD, Start, trials_of, wait_until
from ray.tune.execution import tune_controller

from cifar_tune.search.ray_node import small_tune
from cifar_tune.store import Store

USED = ("gcs_server", "raylet", "ray_stand_in.py", "ray::", "ray_worker", "default_worker.py", "setup_worker.py")


@pytest.mark.slow
def test_a_search_runs_in_the_workers_that_were_warmed_and_starts_nothing_else(tmp_path: Path, start: Start) -> None:
    (tmp_path / "good.py").write_text(GOOD.replace("epochs=1", "epochs=20000"))
    store = Store(tmp_path / "store")
    search = start("run", tmp_path / "good.py", "--store", store.root, "--max-concurrent", 1)
    wait_until(lambda: search.poll() is not None or any(trial.epochs for trial in trials_of(store, "good")))
    (command,) = psutil.Process(search.pid).children()
    rays = [" ".join(each.cmdline()) for each in command.children(recursive=True) if each.is_running()]
    search.terminate()
    search.communicate()
    others = [line for line in rays if line and not any(name in line for name in USED)]
    assert others == []
    assert sum(line.startswith("ray::") for line in rays) == 1, rays


def test_tune_keeps_every_worker_that_waits_for_a_trial() -> None:
    with small_tune():
        workers = tune_controller._ObjectCache(may_keep_one=True)
        assert [workers.cache_object("one core", worker) for worker in ("a", "b", "c")] == [True] * 3
        assert list(workers.flush_cached_objects()) == []
        assert workers.pop_cached_object("one core") == "a"
        assert list(workers.flush_cached_objects(force_all=True)) == ["b", "c"]


def run(code: str, **variables: str) -> str:
    """What a fresh interpreter prints; what it prints on stderr is an error."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


WARM = """
import torch

def refuse(*args):
    raise AssertionError("a GPU was asked for before Ray has said which one it is")

torch.cuda.is_available = torch._C._cuda_getDeviceCount = torch._C._cuda_init = refuse
import cifar_tune.search.ray_warm
print(torch.cuda.is_initialized())
"""


@pytest.mark.slow
def test_a_worker_is_warmed_without_a_gpu() -> None:
    assert run(WARM) == "False"


COMPILER = """
import sys
import cifar_tune.search.ray_warm
import torch

network = torch.nn.Linear(2, 1)
for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Muon):
    optimizer = kind([network.weight], lr=0.1)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo.eval_frame" not in sys.modules
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
import torch._dynamo.eval_frame
optimizer.step()
"""


@pytest.mark.slow
def test_a_worker_imports_torchs_compiler_only_when_it_is_asked_for() -> None:
    assert run(COMPILER) == "2.0"


FALLBACK = """
from cifar_tune.search.ray_settings import configure_ray

configure_ray(local=True)
import ray
from cifar_tune.search import ray_node
from cifar_tune.search.ray_cluster import ray_cluster

ray_node.PORTS = ("A_NAME_OF_ANOTHER_VERSION",)
with ray_cluster(None):
    print(ray.get(ray.remote(lambda: "answered").remote()))
"""


@pytest.mark.slow
def test_a_ray_of_another_version_starts_with_all_of_its_processes() -> None:
    assert run(FALLBACK) == "answered"
