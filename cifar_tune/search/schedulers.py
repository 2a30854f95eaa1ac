"""Successive halving as its own small rule: which trial goes on at a rung, and which is stopped.

Asynchronous (ASHA, Li et al., arXiv:1810.05934) in its stopping form. Unlike Ray's, a rung lies at a fraction of the
trial's own schedule, the share that goes on does not depend on the spacing of the rungs, and baselines never stop.
"""

import math
from collections import defaultdict
from collections.abc import Sequence


def rung_epochs(epochs: int, fractions: Sequence[float], first_rung: int = 1) -> dict[int, float]:
    """The epochs after which a trial of `epochs` is judged, with the rung of each; where two fall together, the later.

    None lies before `first_rung`. The last epoch is no rung: a trial that gets there is complete.
    """
    rungs = {max(1, _ceil(fraction * epochs)): fraction for fraction in sorted(fractions)}
    return {epoch: fraction for epoch, fraction in rungs.items() if first_rung <= epoch < epochs}


class Rungs:
    """The accuracies seen at every rung of a search, and the judgement of each new one."""

    def __init__(self, fractions: Sequence[float], keep: float) -> None:
        self._fractions = fractions
        self._keep = keep
        self._seen: dict[float, dict[int, float]] = defaultdict(dict)

    def record(self, trial: int, epoch: int, epochs: int, val_accuracy: float, *, first_rung: int = 1) -> bool:
        """Take note of an epoch of a trial; whether the trial belongs to the best `keep` of its rung so far.

        Always true between rungs. The best of a rung always goes on, so the first one there does.
        """
        fraction = rung_epochs(epochs, self._fractions, first_rung).get(epoch)
        if fraction is None:
            return True
        seen = self._seen[fraction]
        seen[trial] = val_accuracy
        better = sum(other > val_accuracy for other in seen.values())
        return better < max(1, _ceil(self._keep * len(seen)))


def _ceil(product: float) -> int:
    """Upwards, but 0.28 x 25 is 7, although its float lies above."""
    return math.ceil(product - 1e-9)
