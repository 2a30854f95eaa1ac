"""The formats of numbers: every example in a docstring is what the function returns."""

import inspect
import re
from collections.abc import Callable

import pytest

from cifar_tune import wording
from cifar_tune.wording import (
    format_bytes,
    format_clock,
    format_cost,
    format_count,
    format_gain,
    format_hours,
    format_millions,
    format_number,
    format_percent,
    format_percent_range,
    format_points,
    format_points_range,
    format_score,
    format_seconds,
    format_setting,
    score_title,
)

Format = Callable[..., str]

EXAMPLES: list[tuple[Format, tuple[object, ...], str]] = [
    (format_percent, (0.864,), "86.40 %"),
    (format_percent_range, (0.851, 0.877), "85.10 to 87.70"),
    (format_score, ("accuracy", 0.864), "86.40 %"),
    (format_score, ("macro_f1", 0.864), "macro F1 86.40 %"),
    (score_title, ("macro_f1",), "macro F1"),
    (format_points, (1.2,), "+1.20"),
    (format_gain, (0.012, 0.004, 0.02), "+1.20 points (+0.40 to +2.00)"),
    (format_points_range, (0.004, 0.02), "+0.40 to +2.00"),
    (format_hours, (90,), "90 seconds"),
    (format_hours, (2700,), "45 minutes"),
    (format_hours, (11_520,), "3.2 hours"),
    (format_clock, (3723,), "1:02:03"),
    (format_clock, (123,), "2:03"),
    (format_seconds, (12.34,), "12.3 s"),
    (format_bytes, (3.4 * 2**20,), "3.4 MiB"),
    (format_bytes, (1.2 * 2**30,), "1.2 GiB"),
    (format_cost, ("num_parameters", 77_850), "77,850 parameters"),
    (format_cost, ("num_macs", 31_100_000), "31.1 M multiply-adds"),
    (format_cost, ("seconds", 12.3), "12.3 s"),
    (format_millions, (31_100_000,), "31.1 M"),
    (format_number, (0.0015649,), "0.00156"),
    (format_setting, ("optimizer/lr", 0.0015649), "optimizer/lr=0.00156"),
    (format_count, (1, "epoch"), "1 epoch"),
    (format_count, (1200, "epoch"), "1,200 epochs"),
]


@pytest.mark.parametrize(("function", "arguments", "text"), EXAMPLES, ids=[text for *_, text in EXAMPLES])
def test_a_number_is_written_as_in_the_docstring(function: Format, arguments: tuple[object, ...], text: str) -> None:
    assert function(*arguments) == text
    assert f"`{text}`" in (function.__doc__ or "")


def test_every_example_of_a_docstring_is_among_these() -> None:
    functions = [each for _, each in inspect.getmembers(wording, inspect.isfunction)]
    in_docstrings = {(each, text) for each in functions for text in re.findall(r"`([^`]+)`", each.__doc__ or "")}
    assert in_docstrings == {(function, text) for function, _, text in EXAMPLES}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_percent(0.8641, digits=0), "86 %"),
        (format_points(-0.004), "-0.00"),
        (format_hours(119.4), "119 seconds"),
        (format_hours(120), "2 minutes"),
        (format_hours(7199), "120 minutes"),
        (format_hours(7200), "2.0 hours"),
        (format_clock(59.6), "1:00"),
        (format_seconds(1234.56), "1,234.6 s"),
        (format_bytes(0), "0.0 MiB"),
        (format_bytes(2**30 - 1), "1,024.0 MiB"),
        (format_number("adam"), "adam"),
        (format_number(64), "64"),
        (format_setting("finetune/views", None), "finetune/views=None"),
        (format_count(0, "epoch"), "0 epochs"),
        (format_count(2, "class", "classes"), "2 classes"),
    ],
)
def test_numbers_at_the_edges_of_a_format(text: str, expected: str) -> None:
    assert text == expected
