"""SEARCH in a space file: number of trials, sampler, scheduler, score, and a cost to minimize or to limit."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cifar_tune.recipe.options import Count
from cifar_tune.search.schedulers import Asha, ByForecast, FreezeThaw, Scheduler
from cifar_tune.trials.goal import Goal

SamplerName = Literal["forecast", "tpe", "random", "gp", "cmaes", "qmc"]
UNCONDITIONAL: tuple[SamplerName, ...] = ("gp", "cmaes", "qmc")  # Optuna's, for names that every trial samples
ONE_OBJECTIVE: tuple[SamplerName, ...] = ("forecast", "cmaes")  # they know the score only
TWO_OBJECTIVES: Mapping[str, Any] = {"sampler": "tpe", "scheduler": Asha()}  # defaults where a cost is minimized
OTHER_SAMPLER: Mapping[str, Any] = {"scheduler": ByForecast()}  # defaults with a sampler that is not the forecast's


class Search(Goal):
    """How to search a space, and for what. A trial that takes longer than `minutes_per_trial` fails."""

    num_trials: Count = 40
    sampler: SamplerName = "forecast"
    scheduler: Scheduler = FreezeThaw()
    minutes_per_trial: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _set_defaults(cls, options: dict[str, Any]) -> dict[str, Any]:
        """A scheduler may be given by its name. Other defaults apply where a cost is minimized, and by the sampler."""
        if isinstance(options.get("scheduler"), str):
            options = {**options, "scheduler": {"name": options["scheduler"]}}
        if options.get("minimize"):
            return {**TWO_OBJECTIVES, **options}
        return options if options.get("sampler", "forecast") == "forecast" else {**OTHER_SAMPLER, **options}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        # Where a cost is minimized, neither can be taken: the space says so.
        if self.scheduler.name == "freeze-thaw" and self.sampler != "forecast" and not self.minimize:
            raise ValueError(
                "the scheduler freeze-thaw needs the sampler forecast; leave the sampler out, or take asha"
            )
        return self

    @property
    def goal(self) -> Goal:
        """The part that says what to search for."""
        return Goal(score=self.score, minimize=self.minimize, limits=self.limits)
