"""The sealed log of the openings of a search's test set, each with the evaluation that read it.

Each entry is sealed with a digest that includes the seal of the entry before it, so a changed or removed entry is
detected. The log is an attribute of the search's study, and is written before the test set is read.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cifar_tune.errors import UserError
from cifar_tune.store import Store
from cifar_tune.trials.reading import read_attributes, write_attribute

OPENINGS = "test_openings"


@dataclass(frozen=True)
class Opening:
    """One opening of the test set; `at` is in UTC."""

    evaluation: int
    at: str


def note_opening(store: Store, search: str, evaluation: int) -> None:
    """Log that the evaluation reads the test set now; an evaluation that is resumed counts as one opening."""
    entries = _entries(store, search)
    if any(entry["evaluation"] == evaluation for entry in entries):
        return
    entry = {"evaluation": evaluation, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    entries.append({**entry, "seal": _seal(store, search, entries, entry)})
    write_attribute(store, search, OPENINGS, entries)


def read_openings(store: Store, search: str) -> list[Opening]:
    """All openings in order; a UserError if the log was changed by anything but this module."""
    entries = _entries(store, search)
    for i, entry in enumerate(entries):
        if entry["seal"] != _seal(store, search, entries[:i], entry):
            raise UserError(f"The log of {search}'s test set openings was altered; do not trust its test accuracies.")
    return [Opening(entry["evaluation"], entry["at"]) for entry in entries]


def _entries(store: Store, search: str) -> list[dict[str, Any]]:
    return list(read_attributes(store, search).get(OPENINGS, []))


def _seal(store: Store, search: str, before: list[dict[str, Any]], entry: dict[str, Any]) -> str:
    last = before[-1]["seal"] if before else read_attributes(store, search)["id"]
    return hashlib.sha256(f"{last} {entry['evaluation']} {entry['at']}".encode()).hexdigest()
