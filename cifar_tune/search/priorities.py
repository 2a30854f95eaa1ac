"""Freeze and thaw: who gets the next epochs, a paused trial or a new one? One number answers it for all of them.

That number is the reservation value of acquisition.py, from the forecast of each trial's final score. The price of an
epoch falls whenever no trial promises more than the best one has: then it is worth more epochs to find a better one.
So a search is bold at first and thorough later, without knowing when it will end. The constants were chosen by
simulated searches, which analysis/benchmark/LOG.md lists.

Beside that there is always one favourite: the paused trial with the highest forecast, which is trained on without
pauses as long as it stays near the top. Training one to its end takes long where many workers share the epochs, so it
has to begin early. When no trial is left to begin, only those go on that are worth more than the best one is.
"""

import math
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from cifar_tune.search.acquisition import Costs, reservation_values
from cifar_tune.search.encoding import Array

if TYPE_CHECKING:
    from cifar_tune.search.forecast import Forecast
    from cifar_tune.search.gaussian_process import Foresight

PRICE = 0.5  # of a whole training at first, in standard deviations of the scores at the first level
CHEAPER = 0.5  # factor by which the price falls
LOWEST = 1 / 16  # of the first price: a trial that is not worth that is not worth any epochs
MARGIN = 0.5  # standard deviations by which the favourite may fall behind the best paused trial


class Priorities:
    """Decides by a forecast which trial goes on. `newcomer` gives what is known of the best new recipe, if any is left.

    A whole training has about `epochs`. The planner's thread chooses, while another one asks whether a trial goes on.
    Each command begins with the first price.
    """

    def __init__(
        self, forecast: "Forecast", newcomer: "Callable[[], tuple[Foresight, Costs] | None]", epochs: int
    ) -> None:
        self._forecast = forecast
        self._newcomer = newcomer
        self._epochs = epochs
        self._first_price: float | None = None
        self._price = 0.0
        self._alternative = math.inf  # the reservation value of what a free worker would take up
        self._favourite: int | None = None
        self._lock = Lock()  # guards the favourite

    def worths(self, foresight: "Foresight", costs: Costs) -> Array:
        """The reservation values of trials at the present price: (n,)."""
        return reservation_values(foresight, costs, self._present_price())

    def _present_price(self) -> float:
        """The price of one epoch; the first one depends on the spread of the scores and the length of a training."""
        if self._first_price is None:
            assert self._forecast.model is not None
            self._first_price = self._price = PRICE * self._forecast.model.posterior.scale.sd / self._epochs
        return self._price

    def choose(self, paused: Sequence[int], *, can_begin: bool) -> int | None:
        """The number of the paused trial that goes on; None for a new one, or for none where no more `can_begin`.

        The forecast has been fitted to all that is known.
        """
        offers = []
        if paused:
            foresight = self._forecast.foresee(paused, believing=True)
            if can_begin and (favourite := self._new_favourite(paused, foresight)) is not None:
                return favourite
            offers.append((foresight, self._forecast.costs(paused)))
        if can_begin and (newcomer := self._newcomer()) is not None:
            offers.append(newcomer)
        if not offers:
            return None
        worths = self._worths_of_all(offers)
        incumbent = self._incumbent
        while worths.max() <= incumbent and can_begin and self._fall():
            worths = self._worths_of_all(offers)
        best = int(np.argmax(worths))
        self._alternative = float(worths[best]) if can_begin else max(float(worths[best]), incumbent)
        return paused[best] if best < len(paused) and worths[best] > incumbent else None

    def _worths_of_all(self, offers: "Sequence[tuple[Foresight, Costs]]") -> Array:
        return np.concatenate([self.worths(*offer) for offer in offers])

    @property
    def _incumbent(self) -> float:
        model = self._forecast.model
        assert model is not None
        return -math.inf if model.incumbent is None else model.incumbent

    def _fall(self) -> bool:
        """Lower the price, unless it is at its lowest."""
        assert self._first_price is not None
        if self._price <= LOWEST * self._first_price:
            return False
        self._price *= CHEAPER
        return True

    def _new_favourite(self, paused: Sequence[int], foresight: "Foresight") -> int | None:
        """The paused trial with the highest forecast, if none is the favourite now and it may be better than the best.

        It is the favourite from now on.
        """
        with self._lock:
            if self._favourite is not None and self._forecast.are_running([self._favourite]):
                return None
            first = int(np.argmax(foresight.mean))
            if foresight.mean[first] + foresight.sd[first] <= self._incumbent:
                return None
            self._favourite = paused[first]
            return self._favourite

    def goes_on(self, number: int) -> bool:
        """Whether a trial that has just got a score goes on without a pause, rather than what is chosen already."""
        foresight, costs = self._forecast.foresee([number]), self._forecast.costs([number])
        with self._lock:
            if number == self._favourite:
                others = self._forecast.expect(self._forecast.waiting()).values()
                if foresight.mean[0] >= max(others, default=-math.inf) - MARGIN * foresight.sd[0]:
                    return True
                self._favourite = None
        return float(self.worths(foresight, costs)[0]) > self._alternative
