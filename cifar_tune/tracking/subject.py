"""A search as MLflow shows it: what its parent run says, and which data set its runs name. Imports no MLflow."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cifar_tune.training.scores import ScoreName


@dataclass(frozen=True)
class Subject:
    """A search, or the reruns of one. `search` is its name, and `id` tells it from others of that name on a server.

    `size` says how many images the data set has; it is empty where that is not known.
    """

    search: str
    id: str
    dataset: str
    digest: str
    size: str
    description: str
    tags: Mapping[str, str]
    score: ScoreName = "accuracy"  # what its trials are scored by

    def dump(self) -> dict[str, Any]:
        """The subject as JSON holds it."""
        return asdict(self)

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> "Subject":
        """The subject that `dump` gave."""
        return cls(**document)
