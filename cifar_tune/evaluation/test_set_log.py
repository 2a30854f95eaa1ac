"""The sealed record of how often the test set of a search was opened, and for which of its evaluations.

Each entry is sealed with a digest over the one before, so that an entry that was changed or taken out shows. The record
is in the study of the search, and is written before the test set is read.
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
    """One of them; `at` is in UTC."""

    evaluation: int
    at: str


def note_opening(store: Store, search: str, evaluation: int) -> None:
    """Write that this evaluation reads the test set now; one that goes on after an interruption is the same opening."""
    entries = _sealed(store, search)
    if any(entry["evaluation"] == evaluation for entry in entries):
        return
    entry = {"evaluation": evaluation, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    entries.append({**entry, "seal": _seal(store, search, entries, entry)})
    write_attribute(store, search, OPENINGS, entries)


def read_openings(store: Store, search: str) -> list[Opening]:
    """All of them; a UserError where the record was changed by somebody else."""
    entries = _sealed(store, search)
    for i, entry in enumerate(entries):
        if entry["seal"] != _seal(store, search, entries[:i], entry):
            raise UserError(f"The record of {search}'s test openings was altered; its test figures cannot be trusted.")
    return [Opening(entry["evaluation"], entry["at"]) for entry in entries]


def _sealed(store: Store, search: str) -> list[dict[str, Any]]:
    return list(read_attributes(store, search).get(OPENINGS, []))


def _seal(store: Store, search: str, before: list[dict[str, Any]], entry: dict[str, Any]) -> str:
    last = before[-1]["seal"] if before else read_attributes(store, search)["id"]
    return hashlib.sha256(f"{last} {entry['evaluation']} {entry['at']}".encode()).hexdigest()
