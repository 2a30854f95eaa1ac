"""MLflow keeps absolute paths of artifacts in its database; a store that was moved or copied takes its own instead.

MLflow has no function for it. In a copy the old paths are worse than useless: deleting there would delete the original.
"""

import sqlite3
from contextlib import closing

from cifar_tune.store import Store

LOCK_SECONDS = 60.0  # to wait while another program has the database locked
PLACES = (  # the table and the column of every path of an artifact
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def relocate_artifacts(store: Store) -> None:
    """Let the paths in the store's database of MLflow, if it has one, lead to the store's own folder of artifacts."""
    path, folder = store.root / "mlflow.db", store.artifacts.as_uri()
    if not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return
        query = "SELECT DISTINCT artifact_location FROM experiments WHERE name LIKE 'cifar-tune %'"
        folders = {location.rpartition("/")[0] for (location,) in connection.execute(query)}
        for old in folders - {folder}:
            if not old.startswith("file:"):
                continue
            for table, column in PLACES:
                if table in tables:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (folder, len(old) + 1, len(old) + 1, f"{old}/"),
                    )
