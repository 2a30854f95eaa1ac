"""What all methods share that ask for a configuration with a number of epochs, and are told its last accuracy."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """A configuration to train until it has `epochs`; `key` names the configuration, `ticket` is the library's own."""

    key: Hashable
    params: Mapping[str, Any]
    epochs: int
    ticket: Any


class SuccessiveHalving(ABC):
    """A method that promotes configurations: a trial goes on when its configuration is asked for with more epochs.

    A job whose epochs are trained already is answered at once; one whose trial is running waits for it.
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._accuracies: dict[int, list[float]] = defaultdict(list)
        self._jobs: dict[int, list[Job]] = defaultdict(list)  # of each running trial

    @abstractmethod
    def ask(self) -> Job | None:
        """The next job; None if there is none now."""

    @abstractmethod
    def tell(self, job: Job, accuracy: float) -> None:
        """Tell the library the accuracy after the job's last epoch."""

    def start(self) -> tuple[int, Mapping[str, Any]] | None:
        """The next trial that needs a worker: a new one, or one that was promoted; None if there is none now."""
        while job := self.ask():
            number = self._numbers.setdefault(job.key, len(self._numbers))
            if job.epochs <= len(self._accuracies[number]):
                self.tell(job, self._accuracies[number][job.epochs - 1])
                continue
            self._jobs[number].append(job)
            if len(self._jobs[number]) == 1:
                return number, job.params
        return None

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        """Tell the jobs that end with this epoch; the trial goes on while another needs more."""
        self._accuracies[number].append(accuracy)
        jobs = self._jobs[number]
        self._jobs[number] = [job for job in jobs if job.epochs > epoch]
        for job in jobs:
            if job.epochs == epoch:
                self.tell(job, accuracy)
        return bool(self._jobs[number])


def whole_epochs(fidelity: float) -> int:
    """The epochs of a fidelity like 16/9, to the nearest whole number."""
    return max(1, round(fidelity))
