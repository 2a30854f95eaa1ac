"""Everything that a store knows of its searches, read once for a whole report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cifar_tune.evaluation.confirmation import Confirmation, read_confirmations
from cifar_tune.evaluation.test_set_log import Opening, read_openings
from cifar_tune.store import Store
from cifar_tune.trials.reading import Extension, read_extensions, read_record
from cifar_tune.trials.trial import Trial


@dataclass(frozen=True)
class Findings:
    """By search: its trials, the older search that it extends, its confirmation, the openings of its test set."""

    searches: Mapping[str, Sequence[Trial]]
    extensions: Mapping[str, Extension] = field(default_factory=dict)
    confirmations: Mapping[str, Confirmation] = field(default_factory=dict)
    openings: Mapping[str, Sequence[Opening]] = field(default_factory=dict)


def read_findings(store: Store, names: Sequence[str] = ()) -> Findings:
    """The findings of the named searches, or of all in the store; a UserError for an unknown name."""
    searches = read_record(store, names)
    openings = {name: read_openings(store, name) for name in searches}
    return Findings(searches, read_extensions(store, searches), read_confirmations(store, searches), openings)
