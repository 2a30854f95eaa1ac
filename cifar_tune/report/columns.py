"""The columns of the leaderboard: for each its name, its value for a trial, and how it is shown.

To add a column, add it to LEADERBOARD: csv, json, frames, the terminal and the page then have it. The columns of
comparisons are described here too, since the same tables show them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from cifar_tune.evaluation.confirmation import Confirmation
from cifar_tune.evaluation.significance import Gain
from cifar_tune.training.scores import ScoreName, metric_name
from cifar_tune.trials.facts import LET_THROUGH, NUM_MACS, NUM_PARAMETERS
from cifar_tune.trials.ranking import gain_in_points
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_millions, format_points, score_title

NOTHING = "-"  # a cell without a value
Group = Literal["number", "outcome", "recipe", "cost"]
GROUPS: tuple[Group, ...] = ("number", "outcome", "recipe", "cost")  # in the order of the page
ALWAYS_SHOWN, SEARCHED_PRIORITY, LAST_PRIORITY = 0, 6, 7  # a narrow terminal keeps the smallest


def _plain(value: Any) -> str:  # noqa: ANN401 - a cell
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _share(share: float) -> str:
    return f"{share:.4f}"  # to a hundredth of a point


def _whole(number: float) -> str:
    return f"{int(number):,}"  # a frame may hold it as a float


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}"


def _tick(is_so: bool) -> str:
    return "yes" if is_so else NOTHING


@dataclass(frozen=True)
class Column:
    """A column of a table for people. `header` has two lines for narrow terminals; it is the name where it is empty."""

    name: str
    header: str = ""
    format: Callable[[Any], str] = _plain

    @property
    def lines(self) -> list[str]:
        """The lines of the header."""
        return (self.header or self.name).split("\n")

    @property
    def title(self) -> str:
        """The header in one line."""
        return "\n".join(self.lines).replace("-\n", "").replace("\n", " ")

    def text(self, value: Any) -> str:  # noqa: ANN401 - a cell
        """A value as people write it; a dash where there is none."""
        is_missing = value is None or (isinstance(value, float) and math.isnan(value))
        return NOTHING if is_missing else self.format(value)


@dataclass(frozen=True)
class RankedTrial:
    """A trial with what its leaderboard knows: its rank, its baseline's score, its search's confirmation."""

    trial: Trial
    rank: int
    baseline: float | None
    is_on_front: bool
    confirmation: Confirmation | None

    @property
    def confirmed_gain(self) -> Gain | None:
        """The gain over fresh seeds; None for a trial that was no finalist, or could not be judged."""
        return self.confirmation.gains.get(self.trial.number) if self.confirmation else None

    @property
    def verdict(self) -> str | None:
        """Whether the gain is real, as far as fresh seeds judged it; None for baselines and incomplete trials."""
        if self.confirmed_gain is not None:
            return self.confirmed_gain.verdict
        if self.trial.is_baseline or not self.trial.is_complete:
            return None
        is_finalist = self.confirmation is not None and self.trial.number in self.confirmation.design.recipes
        return "not judged" if is_finalist else "unconfirmed"


@dataclass(frozen=True, kw_only=True)
class TrialColumn(Column):
    """A column of the leaderboard; `value` is that of a trial.

    A column is a result (`is_result`) if it says how a trial went, in contrast to what the trial is. `applies` tells
    for which trials the column exists; a leaderboard without such a trial lacks it. In csv, json and frames searched
    values stand behind all columns except those with `follows_values`. The page orders columns by `group`; a narrow
    terminal drops the columns with the largest `priority` first. `phrase` describes a value that all rows share.
    """

    value: Callable[[RankedTrial], Any]
    is_result: bool = False
    applies: Callable[[RankedTrial], bool] | None = None
    follows_values: bool = False
    group: Group = "cost"
    priority: int = LAST_PRIORITY
    phrase: str = ""

    def describe(self, value: Any) -> str:  # noqa: ANN401 - a cell
        """A value in words: `77,850 parameters`."""
        return (self.phrase or f"{self.title} {{}}").format(self.text(value))


BAND = ("confirmed_gain", "gain_low", "gain_high")


def band(gain: Gain) -> dict[str, float]:
    """The columns of BAND for a confirmed gain, in points."""
    return dict(zip(BAND, (100 * share for share in (gain.mean, gain.low, gain.high)), strict=True))


def _band_column(name: str, header: str) -> TrialColumn:
    def value(ranked: RankedTrial) -> float:
        assert ranked.confirmed_gain is not None
        return band(ranked.confirmed_gain)[name]

    return TrialColumn(
        name,
        header,
        format_points,
        value=value,
        is_result=True,
        applies=lambda ranked: ranked.confirmed_gain is not None,
        follows_values=True,
        group="outcome",
        priority=2,
    )


def _score_column(score: ScoreName, header: str) -> TrialColumn:
    """The column of a score that is no accuracy, by which the trials of some searches are ranked."""
    return TrialColumn(
        metric_name(score),
        header,
        _share,
        value=lambda ranked: ranked.trial.score,
        is_result=True,
        applies=lambda ranked: ranked.trial.goal.score == score,
        group="outcome",
        priority=1,
    )


LEADERBOARD = (
    TrialColumn("rank", format=_whole, value=lambda r: r.rank, is_result=True, group="number", priority=ALWAYS_SHOWN),
    TrialColumn("search", value=lambda r: r.trial.search, group="outcome", priority=ALWAYS_SHOWN, phrase="search {}"),
    TrialColumn(
        "trial", format=_whole, value=lambda r: r.trial.number, is_result=True, group="number", priority=ALWAYS_SHOWN
    ),
    TrialColumn("state", value=lambda r: r.trial.state, group="outcome", priority=ALWAYS_SHOWN, phrase="all {}"),
    TrialColumn("model", value=lambda r: r.trial.recipe.model.name, group="recipe", priority=5, phrase="{}"),
    TrialColumn(
        "schedule", value=lambda r: r.trial.recipe.schedule.name, group="recipe", priority=5, phrase="{} schedule"
    ),
    TrialColumn("optimizer", value=lambda r: r.trial.recipe.optimizer.name, group="recipe", priority=5, phrase="{}"),
    TrialColumn("dataset", value=lambda r: r.trial.dataset, group="recipe", phrase="{}"),
    TrialColumn(
        "train_images",
        "training\nimages",
        _whole,
        value=lambda r: r.trial.recipe.train_images,
        group="recipe",
        phrase="{} training images",
    ),
    TrialColumn(
        "score",
        format=score_title,
        value=lambda r: r.trial.goal.score,
        applies=lambda r: r.trial.goal.score != "accuracy",
        group="outcome",
        phrase="scored by {}",
    ),
    TrialColumn(
        "val_accuracy",
        "val\naccuracy",
        _share,
        value=lambda r: r.trial.accuracy,
        is_result=True,
        group="outcome",
        priority=ALWAYS_SHOWN,
    ),
    _score_column("balanced_accuracy", "val balanced\naccuracy"),
    _score_column("macro_f1", "val\nmacro F1"),
    TrialColumn(
        "gain",
        format=format_points,
        value=lambda r: gain_in_points(r.trial, r.baseline),
        is_result=True,
        group="outcome",
        priority=ALWAYS_SHOWN,
    ),
    TrialColumn("verdict", value=lambda r: r.verdict, is_result=True, group="outcome", priority=1),
    _band_column("confirmed_gain", "confirmed\ngain"),
    _band_column("gain_low", "from"),
    _band_column("gain_high", "to"),
    TrialColumn(
        "pareto",
        "Pareto\nfront",
        _tick,
        value=lambda r: r.is_on_front,
        is_result=True,
        applies=lambda r: r.trial.goal.minimize is not None,
        group="outcome",
        priority=3,
    ),
    TrialColumn(
        "over_limits",
        "over\nlimits",
        value=lambda r: ", ".join(r.trial.over_limits) or None,
        is_result=True,
        applies=lambda r: bool(r.trial.goal.limits.by_cost),
        group="outcome",
        priority=3,
    ),
    TrialColumn("epochs", format=_whole, value=lambda r: r.trial.epochs, is_result=True, priority=4),
    TrialColumn("seconds", format=_seconds, value=lambda r: r.trial.seconds, is_result=True),
    TrialColumn(
        "let_through",
        "let through\nat epoch",
        _whole,
        value=lambda r: r.trial.facts.get(LET_THROUGH),
        is_result=True,
    ),
    TrialColumn(
        "num_parameters",
        "para-\nmeters",
        _whole,
        value=lambda r: r.trial.facts.get(NUM_PARAMETERS),
        phrase="{} parameters",
    ),
    TrialColumn(
        "num_macs",
        "multiply\nadds",
        format_millions,
        value=lambda r: r.trial.facts.get(NUM_MACS),
        phrase="{} multiply-adds",
    ),
)
COMPARISON = (  # of groups of trials, and of the published projects
    Column("trials", format=_whole),
    Column("completed", format=_whole),
    Column("best", format=_share),
    Column("mean", format=_share),
    Column("mean_low", "95 %\nfrom", _share),
    Column("mean_high", "to", _share),
    Column("best_trial", "best\ntrial"),
)
_BY_NAME: dict[str, Column] = {column.name: column for column in (*LEADERBOARD, *COMPARISON)}


def find_column(name: str) -> Column:
    """The column of that name in any table of the report; a plain one for another name, such as a recipe's field."""
    return _BY_NAME.get(name, Column(name))


def format_value(name: str, value: Any) -> str:  # noqa: ANN401 - a cell
    """A value as the column of that name shows it."""
    return find_column(name).text(value)


def searched_names(frame: pd.DataFrame, columns: Sequence[TrialColumn] = LEADERBOARD) -> list[str]:
    """The names of a leaderboard's searched values, in the frame's order."""
    fixed = {column.name for column in columns}
    return [name for name in map(str, frame.columns) if name not in fixed]


def constant_columns(frame: pd.DataFrame, columns: Sequence[TrialColumn] = LEADERBOARD) -> list[TrialColumn]:
    """The columns that say what a trial is and have one value in every row, the same one; results are none of them."""
    return [
        column
        for column in columns
        if column.name in frame
        and not column.is_result
        and frame[column.name].notna().all()
        and frame[column.name].nunique() == 1
    ]


def varying_columns(frame: pd.DataFrame, columns: Sequence[TrialColumn] = LEADERBOARD) -> list[TrialColumn]:
    """The columns of a leaderboard that are worth showing, with one for each searched value at the end.

    Left out are those that are constant, those without any value, and values that a column says already, such as
    `model/name`. The accuracy and the gain always stay.
    """
    constant = constant_columns(frame, columns)
    repeated = {f"{column.name}/name" for column in columns}
    fixed = [column for column in columns if column.name in frame and column not in constant]
    searched = [_searched(name) for name in searched_names(frame, columns) if name not in repeated]
    return [
        column for column in (*fixed, *searched) if column.priority == ALWAYS_SHOWN or frame[column.name].notna().any()
    ]


def _searched(name: str) -> TrialColumn:
    return TrialColumn(
        name, value=lambda ranked: ranked.trial.params.get(name), group="recipe", priority=SEARCHED_PRIORITY
    )


def is_numeric(values: "pd.Series[Any]") -> bool:
    """Whether there are values and all of them are numbers; truth values are not."""
    there = values.dropna()
    return len(there) > 0 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)
