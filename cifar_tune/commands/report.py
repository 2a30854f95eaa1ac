"""`cifar-tune report`: read the findings of a store and write them in the format that was asked for.

What is in a report, and how it looks, is in report/.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from cifar_tune.errors import UserError
from cifar_tune.report.comparison import compare
from cifar_tune.report.findings import Findings, read_findings
from cifar_tune.report.text import as_plain_table, format_frame, format_report, output_console, render
from cifar_tune.report.trial_sheet import describe_trial
from cifar_tune.store import Store, absolute
from cifar_tune.trials.trial import Trial

Format = Literal["table", "csv", "json", "markdown", "html"]


@dataclass(frozen=True)
class ReportOptions:
    """The flags of `report`: a trial to show in full, or columns to compare by; stdout without an `output`."""

    format: Format = "table"
    output: Path | None = None
    trial: int | None = None
    by: str | None = None


def write_report(folder: Path, searches: Sequence[str], options: ReportOptions) -> None:
    """Write a report on the named searches, or on all in the store in the folder."""
    store = Store(absolute(folder))  # a report makes no folder
    findings = read_findings(store, searches)
    if options.trial is not None:
        if options.format != "table" or options.output or options.by:
            raise UserError("--trial prints one trial for people; leave out --format, --output and --by.")
        _print_trial(findings.searches, options.trial, store)
    elif options.format == "table":
        _write_table(findings, options)
    else:
        text = _format(findings, options)  # all of it, before a file that is there is overwritten
        with _opened(options.output) as file:
            file.write(text)


def _print_trial(searches: Mapping[str, Sequence[Trial]], number: int, store: Store) -> None:
    if len(searches) != 1:
        raise UserError(f"--trial needs one search; name one of {', '.join(searches)}.")
    ((name, trials),) = searches.items()
    numbers = [trial.number for trial in trials]
    if number not in numbers:
        gaps = "" if len(numbers) > max(numbers) - min(numbers) else ", with gaps"
        raise UserError(f"{name} has no trial {number}; it has {min(numbers)} to {max(numbers)}{gaps}.")
    for part in describe_trial(trials, number, store.space(name)):
        output_console(sys.stdout).print(part, highlight=False, soft_wrap=True)


def _write_table(findings: Findings, options: ReportOptions) -> None:
    """Write tables and sentences as wide as the terminal."""
    groups = None if options.by is None else compare(findings, options.by)
    with _opened(options.output) as file:
        console = output_console(file)
        if groups is None:
            parts = render(findings, console.width)
        else:
            parts = [*as_plain_table(groups, f"by {options.by}", console.width)]
        for part in parts:
            console.print(part, highlight=False)


def _format(findings: Findings, options: ReportOptions) -> str:
    """The report as a page or for a program."""
    assert options.format != "table"
    if options.format == "html":
        if options.by is not None:
            raise UserError(
                "--by prints a table, and the page of --format html has its own comparisons; leave out --by."
            )
        from cifar_tune.report.page import render_page  # with plotly, which only the page needs

        return render_page(findings)
    if options.by is None:
        return format_report(findings, options.format)
    return format_frame(compare(findings, options.by), options.format)


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """The file at the path, or stdout."""
    if path is None:
        yield sys.stdout
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another --output.") from None
    with file:
        yield file
