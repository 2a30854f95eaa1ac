"""What the studies of a store have in common: which store, where the figure goes, and what is printed."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cifar_tune import load_trials

Find = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]  # from the trials and the epochs of a store


def run_study(
    about: str,
    name: str,
    find: Find,
    draw: Callable[[pd.DataFrame], Figure],
    conclude: Callable[[pd.DataFrame], str],
    *,
    prints_table: bool = True,
) -> None:
    """The command of a study: its table, its paragraph, its figure's path; where it finds nothing, the paragraph."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--output", type=Path, default=Path(f"{name}.png"))
    arguments = parser.parse_args()
    found = find(*load_trials(store=arguments.store))
    if found.empty:
        print(conclude(found))
        return
    draw(found).savefig(arguments.output, dpi=150)
    if prints_table:
        print(found.to_string(index=False), end="\n\n")
    print(f"{conclude(found)}\n{arguments.output}")
