"""`cifar-tune delete`: remove a search with its reruns, its files and its MLflow runs."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cifar_tune.errors import UserError
from cifar_tune.store import open_store
from cifar_tune.trials.reading import delete_record, derived_names, read_attributes, read_record
from cifar_tune.wording import format_bytes, format_count


def delete_search(folder: Path, search: str, confirm: Callable[[str], bool]) -> None:
    """Delete a search from the store in the folder, if `confirm` answers the question with yes."""
    store = open_store(folder)
    (trials,) = read_record(store, [search]).values()
    num_trials = format_count(len(trials), "trial")
    if not confirm(f"Delete {search} with its {num_trials}?"):
        raise UserError(f"{search} is kept; nothing was deleted.")
    from cifar_tune.tracking.runs import check_answers, delete_runs  # MLflow's import takes seconds: after the question

    with store.running(search), ExitStack() as stack:
        records = [search, *derived_names(store, search)]
        for name in records[1:]:
            stack.enter_context(store.running(name))
        ids = [read_attributes(store, name).get("id") for name in records]  # None if a process died while it began one
        check_answers(store)
        num_bytes = store.delete_search(search)  # first: on a full disk the databases have no room to delete anything
        store.make_room()
        try:
            num_runs = sum(delete_runs(store, search_id) for search_id in ids if search_id)
        except UserError as error:
            raise UserError(f"{error} The files of {search} are deleted; the same command deletes the rest.") from None
        delete_record(store, search)  # last, so that a deletion that was interrupted can be repeated
    deleted = f"{num_trials}, {format_count(num_runs, 'MLflow run')}, {format_bytes(num_bytes)}"
    print(f"Deleted {search}: {deleted}.", file=sys.stderr)
