"""What every part of a Recipe is: a frozen pydantic model that refuses unknown fields.

No part imports torch before it builds something, so that a search space loads at once.
"""

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """A frozen group of options; an option exists only where it means something."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


UNFINISHED = {"unfinished": True}  # validation context: more fields are to be set, they need not fit together yet

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def part_of(share: float, whole: int) -> int:
    """Upwards, but 0.28 of 25 is 7, although its float lies above."""
    return math.ceil(share * whole - 1e-9)
