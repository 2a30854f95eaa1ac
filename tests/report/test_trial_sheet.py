"""One trial in full, and the command that runs it alone."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
import pytest
from helpers.made_trials import SEARCHES, printed, trial

from cifar_tune.report.trial_sheet import describe_trial
from cifar_tune.search.space import load_space
from cifar_tune.trials.trial import Trial

SPACE = """
from cifar_tune import Recipe

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.01, "weight_decay": 0.001},
    schedule={"name": "one-cycle"}, grad_clip={"name": "value", "limit": 0.3}, epochs=4, batch_size=32, train_images=64,
)

def space(trial):
    optimizer = trial.suggest_categorical("optimizer/name", ["adam", "sgd"])
    schedule = trial.suggest_categorical("schedule/name", ["one-cycle", "step", "cosine"])
    options = {}
    if schedule == "step":
        options["every"] = trial.suggest_int("schedule/step/every", 1, 4)
    if schedule == "cosine":
        options["warmup"] = trial.suggest_float("schedule/cosine/warmup", 0.0, 0.5)
    return Recipe(
        dataset="shapes", model={"name": "mini_resnet"},
        optimizer={
            "name": optimizer,
            "lr": trial.suggest_float(f"optimizer/{optimizer}/lr", 1e-3, 1e-1, log=True),
            **({"weight_decay": 0.001} if optimizer == "adam" else {"nesterov": True}),
        },
        schedule={"name": schedule, **options},
        grad_clip={"name": "value", "limit": 0.3} if schedule == "one-cycle" else {"name": "none"},
        augment={"flip": trial.suggest_categorical("augment/flip", [True, False])},
        epochs=4, batch_size=32, train_images=64,
    )
"""


def test_a_trial_in_full_has_its_result_recipe_curve_facts_and_error() -> None:
    whole = trial(
        1,
        0.62,
        params={"optimizer/sgd/lr": 0.1},
        facts={"num_parameters": 77_850, "device": "cpu"},
        run_id="abc",
        error="Traceback: [/x] KeyError",
    )
    text = printed(describe_trial([trial(0, 0.5), whole], 1, Path("space.py")))
    for part in (
        "tiny trial 1: completed, 62.00 %, +12.00 points over the baseline",
        "4 of 4 epochs in 2.0 s",
        "77,850",
        "cpu",
        "abc",
        "Traceback: [/x] KeyError",
    ):
        assert part in text
    assert re.search(r"optimizer/lr +0\.1 +searched", text)
    assert re.search(r"optimizer/momentum +0\.9 *\n", text)
    assert len(re.findall(r"^ +\d +2 +1\.5 +0\.62 +0\.5", text, re.MULTILINE)) == 4


def test_a_trial_in_full_shows_at_which_epoch_it_was_let_through() -> None:
    text = printed(describe_trial([trial(0, facts={"let_through_at_epoch": 2})], 0, Path("space.py")))
    assert "4 of 4 epochs in 2.0 s, let through at epoch 2\n" in text


@pytest.mark.parametrize("trials", SEARCHES.values(), ids=SEARCHES)
def test_every_trial_can_be_described(trials: list[Trial]) -> None:
    for each in trials:
        text = printed(describe_trial(trials, each.number, Path("space.py")))
        assert f"trial {each.number}: " in text
        assert "cifar-tune run space.py --debug" in text


# The command that runs a trial alone


def settings_of(trials: Sequence[Trial], number: int, space: Path) -> dict[str, str]:
    """The settings in the command's --set options."""
    text = str(describe_trial(trials, number, space)[-1])
    command = shlex.split(text.split("\n", 1)[1])
    assert command[:4] == ["cifar-tune", "run", str(space), "--debug"]
    assert all(option.startswith("--set=") for option in command[4:])
    return dict(option.removeprefix("--set=").split("=", 1) for option in command[4:])


def sampled(path: Path, settings: Mapping[str, str], num_trials: int = 12) -> list[Trial]:
    """The trials that a search of the file would run: its baseline and random ones."""
    space = load_space(path, settings)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    recipes = [*space.baselines, *(space.sample(study.ask()) for _ in range(num_trials))]
    return [trial(number, recipe=recipe) for number, recipe in enumerate(recipes)]


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    path = tmp_path / "a space.py"
    path.write_text(SPACE, encoding="utf-8")
    return path


def test_the_command_of_a_trial_rebuilds_its_recipe(space_file: Path) -> None:
    trials = sampled(space_file, {})
    assert settings_of(trials, 0, space_file) == {}
    for each in trials:
        settings = settings_of(trials, each.number, space_file)
        assert trials[0].recipe.replace(settings) == each.recipe
        assert load_space(space_file, settings).baselines[0] == each.recipe


def test_a_damaged_copy_of_the_space_file_leaves_the_rest_of_the_sheet(space_file: Path) -> None:
    trials = sampled(space_file, {})
    space_file.write_text("import nothing_here", encoding="utf-8")
    assert trials[0].recipe.replace(settings_of(trials, 2, space_file)) == trials[2].recipe


def test_the_command_of_a_trial_repeats_the_settings_of_its_search(space_file: Path) -> None:
    trials = sampled(space_file, {"epochs": "2", "train_images": "none"}, num_trials=2)
    for each in trials:
        assert load_space(space_file, settings_of(trials, each.number, space_file)).baselines[0] == each.recipe


def test_the_command_of_a_trial_keeps_the_phases_that_its_search_had() -> None:
    """`--set epochs` alone would move the end of the first one."""
    path = Path(__file__).parents[2] / "search_spaces" / "resnet50_two_phase.py"
    for each in (trials := sampled(path, {"finetune/head_epochs": "5"}, num_trials=4)):
        assert load_space(path, settings_of(trials, each.number, path)).baselines[0] == each.recipe
