"""The command that all studies of a store share: which store, where the figure goes, what is printed."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cifar_tune import load_trials

Analysis = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]  # the results from the trials and epochs of a store


def run_study(
    description: str,
    name: str,
    analyse: Analysis,
    draw: Callable[[pd.DataFrame], Figure],
    conclude: Callable[[pd.DataFrame], str],
    *,
    prints_table: bool = True,
) -> None:
    """Print the results, a paragraph and the path of the figure; without results, print the paragraph alone.

    The first line of `description` is the command's help.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--store", type=Path, help="the folder of the store; CIFAR_TUNE_STORE's if unset")
    parser.add_argument("--output", type=Path, default=Path(f"{name}.png"), help="the figure's file")
    arguments = parser.parse_args()
    results = analyse(*load_trials(store=arguments.store))
    if results.empty:
        print(conclude(results))
        return
    draw(results).savefig(arguments.output, dpi=150)
    if prints_table:
        print(results.to_string(index=False), end="\n\n")
    print(f"{conclude(results)}\n{arguments.output}")
