"""What a process does with the memory that training frees; how much is used is measured in the tests of the plan."""

import ctypes
import subprocess
import sys

import pytest

# The page faults of a step of Mini-ResNet, in a thread as in a worker.
STEPS = """
import resource
from threading import Thread
import torch
from cifar_tune.recipe.models import MiniResNet
from cifar_tune.training.memory import keep_freed_memory

def train():
    torch.set_num_threads(1)
    network, images = MiniResNet().build(10), torch.rand(64, 3, 32, 32)
    for step in range(8):
        if step == 4:  # the blocks lie in an order that lasts
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        network(images).sum().backward()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4)

KEEP
thread = Thread(target=train)
thread.start()
thread.join()
"""


def page_faults(keep: str) -> int:
    program = STEPS.replace("KEEP", keep)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="another C library than glibc")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    assert page_faults("keep_freed_memory()") < page_faults("") / 4
