"""`run --plan`: what it checks, what it estimates and what it prints, on small networks and the built-in data set."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.command_line import Answer, Call

from cifar_tune.commands.plan import Plan, check_ends, make_plan
from cifar_tune.data.images import TrainingData
from cifar_tune.errors import UserError
from cifar_tune.search.ends import ends
from cifar_tune.search.resources import Resources
from cifar_tune.search.space import Space, load_space
from cifar_tune.training.loop import Training
from cifar_tune.training.probe import NUM_IMAGES_ON_A_CPU, Probe
from cifar_tune.wording import format_bytes, format_hours

CPU = torch.device("cpu")
HEAD = """from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet", "width": 0.25}, optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"}, epochs=8, batch_size=32, train_images=600,
)
SEARCH = Search(num_trials=6, scheduler={"name": "none"})

def space(trial):
"""
PLAIN = """    return BASELINE.replace({
        "model/width": trial.suggest_categorical("model/width", [0.25, 0.5]),
        "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True),
    })
"""
BRANCHES = """    name = trial.suggest_categorical("schedule/name", ["constant", "step"])
    schedule = {"name": name}
    if name == "step":
        schedule = {"name": name, "every": trial.suggest_int("schedule/every", 1, 9, step=2), "gamma": 0.5}
    batch_size = trial.suggest_int("batch_size", 16, 64)
    return Recipe(**{**BASELINE.model_dump(), "schedule": schedule, "batch_size": batch_size})
"""
SPACES = {
    "plain.py": PLAIN,
    "branches.py": BRANCHES,
    "wide.py": PLAIN.replace("[0.25, 0.5]", "[0.25, 1e4]"),
    "diverging.py": PLAIN.replace("1e-2", "1e30"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached_store: Path, shapes: TrainingData) -> Path:
    """Where the user is: space files, and a store that has the data."""
    for name, text in SPACES.items():
        (tmp_path / name).write_text(HEAD + text, encoding="utf-8")
    shutil.copytree(cached_store / "cache", tmp_path / "cifar_tune_store" / "cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR_TUNE_STORE", raising=False)
    return tmp_path


@pytest.fixture
def space_of(tmp_path: Path) -> Callable[[str], Space]:
    """A space whose function has this body."""

    def loaded(body: str) -> Space:
        path = tmp_path / "a.py"
        path.write_text(HEAD + body, encoding="utf-8")
        return load_space(path)

    return loaded


def plan_of(space: Space, data: TrainingData, num_trials: int = 6, num_workers: int = 1) -> Plan:
    return make_plan(space, data, num_trials, Resources(1, 0.0, num_workers), lambda line: None)


# The ends of the ranges


def test_every_name_is_tried_at_both_ends_and_every_choice_of_it(space_of: Callable[[str], Space]) -> None:
    assert [str(end) for end in ends(space_of(BRANCHES))] == [
        "schedule/name=constant",
        "schedule/name=step",
        "batch_size=16",
        "batch_size=64",
        "schedule/every=1",
        "schedule/every=9",
    ]


def test_at_an_end_all_else_is_as_in_the_baseline(space_of: Callable[[str], Space]) -> None:
    space = space_of(PLAIN)
    for end in ends(space):
        assert end.recipe == space.baselines[0].replace({end.name: end.value})


def test_what_the_baseline_lacks_is_tried_as_a_trial_has_it(space_of: Callable[[str], Space]) -> None:
    last = list(ends(space_of(BRANCHES)))[-1].recipe.flatten()
    assert (last["schedule/name"], last["schedule/every"]) == ("step", 9)


def test_a_fixed_field_is_no_range(folder: Path) -> None:
    names = [end.name for end in ends(load_space(folder / "plain.py", {"model/width": "0.25"}))]
    assert names == ["optimizer/lr", "optimizer/lr"]


def test_an_end_that_makes_no_recipe_with_the_baseline_is_left_out(space_of: Callable[[str], Space]) -> None:
    two_phase = """    epochs = trial.suggest_int("epochs", 3, 1000)
    finetune = {"name": "two-phase", "head_epochs": 3} if epochs != 8 else {"name": "scratch"}
    return Recipe(**{**BASELINE.model_dump(), "epochs": epochs, "finetune": finetune})
"""
    assert [str(end) for end in ends(space_of(two_phase))] == ["epochs=1000"]


# The check


def test_more_memory_than_there_is_is_named_with_its_value(
    space_of: Callable[[str], Space], shapes: TrainingData
) -> None:
    """On a CPU the memory of a few images is measured, and scaled to the batch."""
    space = space_of("""    return BASELINE.replace({"batch_size": trial.suggest_int("batch_size", 2, 4096)})\n""")
    probe = Probe(shapes, CPU, 1)
    small, large = (probe.attempt(space.baselines[0].replace({"batch_size": size})) for size in (2, 4096))
    difference = large.memory_bytes - small.memory_bytes
    assert difference > 2**30 / 4, "4,096 images hold at least as much as 16 layers of 4 channels do"
    with pytest.raises(
        UserError, match=r"batch_size=4096 needs about .* of memory for a step, of .* available"
    ) as error:
        check_ends(space, probe, small.memory_bytes + difference // 2, lambda line: None)
    assert "batch_size=2 " not in str(error.value)


def test_memory_grows_with_the_images_that_a_step_holds(space_of: Callable[[str], Space], shapes: TrainingData) -> None:
    baseline = space_of(PLAIN).baselines[0]
    probe = Probe(shapes, CPU, 1)
    few, many, more = (
        probe.attempt(baseline.replace({"batch_size": size})).memory_bytes for size in (1000, 2000, 4000)
    )
    assert (more - many) == pytest.approx(2 * (many - few), rel=0.3)


def test_steps_are_those_of_the_run(space_of: Callable[[str], Space], tiny: TrainingData) -> None:
    """A batch of all images, and no augmentation: an epoch is a step."""
    settings = {"augment/flip": False, "augment/crop_padding": 0, "train_images": None, "batch_size": 96}
    recipe = space_of(PLAIN).baselines[0].replace(settings)
    data = Probe(tiny, CPU, 1)._data
    rehearsed = Training(recipe, data).rehearse(recipe.phases()[0], 96, 3)
    trained = [metrics.train_loss for metrics in Training(recipe.replace({"epochs": 3}), data).fit()]
    assert rehearsed == pytest.approx(trained, rel=1e-4)


# The price


def test_a_plan_has_a_row_for_every_kind_of_trial(space_of: Callable[[str], Space], tiny: TrainingData) -> None:
    plan = plan_of(space_of(PLAIN), tiny)
    assert [row.kind.network for row in plan.rows] == ["mini_resnet width=0.25", "mini_resnet width=0.5"]
    assert sum(row.share for row in plan.rows) == pytest.approx(1)
    for row in plan.rows:
        assert row.price.num_parameters == sum(p.numel() for p in row.price.recipe.model.build(10).parameters())
        assert row.price.epoch_seconds > 0
        assert row.price.memory_bytes > row.price.state_bytes > row.price.weights_bytes
        assert NUM_IMAGES_ON_A_CPU <= row.price.num_images <= 32


def test_hours_are_epochs_times_seconds_shared_by_the_workers(
    space_of: Callable[[str], Space], tiny: TrainingData
) -> None:
    space = space_of(PLAIN.replace("[0.25, 0.5]", "[0.25]"))
    one, two = plan_of(space, tiny), plan_of(space, tiny, num_workers=2)
    for plan, num_workers in ((one, 1), (two, 2)):
        ((seconds,),) = [[row.price.epoch_seconds for row in plan.rows]]
        assert plan.expected_seconds == pytest.approx(6 * 8 * seconds / num_workers)
        assert plan.worst_seconds == pytest.approx(plan.expected_seconds), "no trial is stopped early"
    assert two.running_bytes == 2 * one.running_bytes


def test_a_scheduler_makes_the_expected_time_shorter_than_the_worst(
    space_of: Callable[[str], Space], tiny: TrainingData
) -> None:
    halving = 'SEARCH = Search(scheduler={"name": "asha", "rungs": (0.25, 0.5)})\n'
    plan = plan_of(space_of(PLAIN + halving), tiny)
    assert plan.num_epochs[0] < plan.num_epochs[1] == 8
    assert plan.expected_seconds < plan.worst_seconds


def test_kept_features_are_priced_once_for_all_trials_that_share_them(
    space_of: Callable[[str], Space], tiny: TrainingData
) -> None:
    """4 channels x 4 of the last stage, as float32; a file has a header of its own."""
    frozen = """    return FROZEN.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)})

FROZEN = BASELINE.replace({"finetune/name": "frozen", "augment/flip": False, "augment/crop_padding": 0})
BASELINE = FROZEN
"""
    plan = plan_of(space_of(frozen), tiny)
    (row,) = plan.rows
    assert row.kind.trained == "head (on kept features)"
    assert row.price.start_seconds > 0
    assert plan.features_bytes == row.price.features_bytes == pytest.approx((96 + 48) * 16 * 4, rel=0.5)
    trials = 6 * 8 * row.price.epoch_seconds
    assert plan.expected_seconds == pytest.approx(trials + row.price.start_seconds)


# The command


def test_a_plan_goes_to_stdout_and_its_progress_to_stderr(folder: Path, call: Call) -> None:
    answer = call("run", "plain.py", "--plan", "--gpus-per-trial", "0", "--max-concurrent", "1", "--time-budget", "1s")
    assert answer.code == 0
    for pattern in (
        r"^plain.py: 6 trials, 1 at a time on 1 core each; shapes, 600 training and 500 validation images$",
        r"^Example: model/width=0\.\d+, optimizer/lr=0\.\d+$",
        r"^mini_resnet width=0\.5 +all +32 +\d+ % +55,250 ",
        r"^Time: about .*, with 8\.0 of 8\.0 epochs per trial; .* if no trial is stopped early\.$",
        r"^--time-budget 1 seconds: enough for about \d of the trials\.$",
        r"^Disk: at most .* MiB of checkpoints",
    ):
        assert re.search(pattern, answer.stdout, re.MULTILINE), pattern
    assert re.search(r"^Trying recipe 1 of 4 at the ends of the ranges: baseline 0$", answer.stderr, re.MULTILINE)
    assert "Timing kind 2 of 2" in answer.stderr
    assert "Timing" not in answer.stdout


def test_a_plan_leaves_nothing_but_the_data(folder: Path, call: Call) -> None:
    assert call("run", "plain.py", "--plan", "--gpus-per-trial", "0").code == 0
    assert [path.name for path in (folder / "cifar_tune_store").iterdir()] == ["cache"]


@pytest.mark.slow
def test_a_plan_starts_neither_ray_nor_mlflow() -> None:
    modules = "cifar_tune.commands.plan, cifar_tune.commands.run"
    code = f"import sys, {modules}; sys.exit(bool({{'ray', 'mlflow'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_fails_at_an_end_is_one_sentence_with_the_value(folder: Path, call: Call) -> None:
    answer = call("run", "wide.py", "--plan", "--gpus-per-trial", "0")
    assert (answer.code, answer.stdout) == (2, "")
    assert answer.stderr.splitlines()[-1] == (
        "cifar-tune: wide.py: model/width=1e+04 runs out of memory; change the range, or fix the field with --set."
    )
    assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_a_loss_that_is_no_number_at_an_end_is_a_warning(folder: Path, call: Call) -> None:
    answer: Answer = call("run", "diverging.py", "--plan", "--gpus-per-trial", "0")
    assert answer.code == 0
    assert "Warning: optimizer/lr=1e+30 has no finite loss after two steps.\n" in answer.stdout


@pytest.mark.parametrize(("num_bytes", "text"), [(2**19, "0.5 MiB"), (2**30, "1.0 GiB"), (1500 * 2**30, "1,500.0 GiB")])
def test_bytes_are_written_in_mib_or_gib(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(119, "119 seconds"), (120, "2 minutes"), (7199, "120 minutes"), (5400 * 3, "4.5 hours")]
)
def test_times_are_written_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert format_hours(seconds) == text
