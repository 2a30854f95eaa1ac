"""The base class of every part of a Recipe, and the types of their numbers.

No part imports torch before it builds something, so that a search space loads quickly.
"""

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """A group of options that cannot be changed and refuses unknown ones; it has only options that take effect."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


UNFINISHED = {"unfinished": True}  # validation context: more fields will be set, so they need not fit together yet

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def part_of(share: float, whole: int) -> int:
    """The share of a whole number, rounded up; 0.28 of 25 is 7, although the float product is a little above."""
    return math.ceil(share * whole - 1e-9)
