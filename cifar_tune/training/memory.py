"""The memory of the training device, in bytes: how much there is, how much was used, and whether it ran out.

`keep_freed_memory` is the only function here that changes anything.

What was used is counted for torch's tensors on a GPU, and for the whole process on a CPU.
"""

import ctypes
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_tune.machine import usable_memory

FOREIGN_BYTES = 2 * 1024**3  # of a GPU: more than its driver and a process's context take
SHARE_OF_ALL = 0.5  # of the memory, below which an allocation fits unless others took it
# The numbers of glibc's <malloc.h>, and values that keep everything but blocks of 32 MiB and more.
MALLOC_OPTIONS = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: free memory at the end of a heap from which it is returned
    -2: 64 * 2**20,  # M_TOP_PAD: as large as a thread's heaps, so that empty ones are kept, too
    -3: 32 * 2**20,  # M_MMAP_THRESHOLD: the size from which a block is a mapping of its own
}


def keep_freed_memory() -> None:
    """Let this process keep the memory that a training step frees, for the next one; without glibc nothing changes.

    Otherwise glibc returns it to the system, and a step of a small network has a tenth of its time for page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in MALLOC_OPTIONS.items():
            mallopt(option, value)


def memory_of(device: torch.device) -> int:
    """Bytes that this process may use of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return usable_memory()


def peak_memory(device: torch.device) -> int:
    """The most bytes in use at any time since the peak was reset, or since the process started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        if peak:
            return int(peak[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Count the peak from now on. Where the system does not allow that on a CPU, it still counts from the start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextmanager
def measure_activations(model: nn.Module) -> Iterator[dict[int, int]]:
    """The sizes in bytes, by address, of what a step in the block keeps for its backward pass.

    The model's own parameters and buffers are left out.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    sizes: dict[int, int] = {}

    def note_size(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note_size, lambda tensor: tensor):
        yield sizes


def others_took_memory(error: BaseException, device: torch.device, gpus: float = 1.0) -> bool:
    """Whether an allocation failed for want of memory that other programs use; `gpus` is the share of the GPU to use.

    Where the error says how much was asked for, it would then fit into the memory that there is, with room to spare.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        others = total - free - torch.cuda.memory_reserved(device)
        return others > (1 - min(gpus, 1.0)) * total + FOREIGN_BYTES
    asked = re.search(r"tried to allocate (\d+) bytes", str(error))
    return asked is not None and int(asked[1]) + peak_memory(device) < SHARE_OF_ALL * memory_of(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; for a CPU torch has no exception of its own, only a message."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
