"""Search-space files: every shipped one keeps the contract, and every bad one is refused with one sentence."""

import re
from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Value, field_of
from cifar_tune.recipe.schedules import Schedule
from cifar_tune.search.ranges import contains, format_range
from cifar_tune.search.search import Search
from cifar_tune.search.space import Space, load_space

SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.py"))
every_shipped_space = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)

GOOD = """from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"}, epochs=2, batch_size=100,
)

def space(trial: Trial) -> Recipe:
    lr = trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)
    return BASELINE.replace({"optimizer/lr": lr})

SEARCH = Search(num_trials=7)
"""

BRANCHES = """from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.01},
    schedule={"name": "step", "every": 3}, epochs=2, batch_size=100,
)

def space(trial: Trial) -> Recipe:
    optimizer = trial.suggest_categorical("optimizer/name", ["adam", "sgd"])
    schedule = trial.suggest_categorical("schedule/name", ["step", "cosine"])
    every = {"every": trial.suggest_int("schedule/step/every", 1, 4)} if schedule == "step" else {}
    return Recipe(
        dataset="shapes", model={"name": "mini_resnet"},
        optimizer={"name": optimizer, "lr": trial.suggest_float(f"optimizer/{optimizer}/lr", 1e-3, 1e-1, log=True)},
        schedule={"name": schedule, **every}, epochs=2,
        batch_size=trial.suggest_categorical("batch_size", [50, 100]),
    )
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "a_space.py"
    path.write_text(text, encoding="utf-8")
    return path


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1
    return GOOD.replace(old, new, 1)


def draw(space: Space, num_trials: int) -> list[tuple[dict[str, Value], dict[str, Value]]]:
    """The sampled values and all names of the Recipe, for each of the random trials."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trials = [study.ask() for _ in range(num_trials)]
    recipes = [space.sample(trial) for trial in trials]
    return [(trial.params, recipe.sampled_names()) for trial, recipe in zip(trials, recipes, strict=True)]


def test_spaces_are_shipped() -> None:
    assert SHIPPED


@every_shipped_space
def test_a_shipped_space_samples_the_values_that_its_recipe_trains_with(path: Path) -> None:
    for params, names in draw(load_space(path), 50):
        assert params
        assert params == {name: names[name] for name in params}


@every_shipped_space
def test_a_shipped_space_gives_its_baselines_back_from_values_inside_its_ranges(path: Path) -> None:
    space = load_space(path)
    ranges = space.ranges()
    for baseline in space.baselines:
        trial = space.baseline_trial(baseline)
        assert trial.params
        assert all(contains(ranges[name], value) for name, value in trial.params.items())
        assert space.sample(optuna.trial.FixedTrial(dict(trial.params))) == baseline


@every_shipped_space
def test_the_ranges_of_a_shipped_space_have_every_name_that_it_samples(path: Path) -> None:
    space = load_space(path)
    assert {name for params, _ in draw(space, 50) for name in params} <= set(space.ranges())


@every_shipped_space
def test_a_shipped_space_samples_one_distribution_per_name(path: Path) -> None:
    """Optuna's samplers fit one name over all its trials."""
    space = load_space(path)
    ranges = space.ranges()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2))
    for trial in [study.ask() for _ in range(50)]:
        space.sample(trial)
        assert trial.distributions == {name: ranges[name] for name in trial.distributions}


@every_shipped_space
def test_a_shipped_space_stops_trials_within_their_epochs(path: Path) -> None:
    space = load_space(path)
    assert space.search.num_trials > len(space.baselines)
    for recipe in space.draw_recipes():
        assert space.search.scheduler.expected_epochs(recipe) < recipe.epochs


@every_shipped_space
def test_the_docstring_of_a_shipped_space_has_its_command_source_cost_and_expected_result(path: Path) -> None:
    docstring = path.read_text(encoding="utf-8").split('"""')[1]
    assert f"    cifar-tune run search_spaces/{path.name}\n" in docstring
    for word in ("Source: ", "Cost: ", "Expected: "):
        assert f"\n{word}" in docstring


@pytest.mark.slow
@every_shipped_space
def test_every_sampled_field_of_a_shipped_space_can_be_set(path: Path) -> None:
    """Fixing a field to the baseline's value fixes every name that is about it, and draws stay valid."""
    baseline = load_space(path).baselines[0]
    flat = baseline.flatten()
    sampled = {field_of(name) for name in load_space(path).ranges()} & set(flat)
    for name in sorted(sampled):
        space = load_space(path, {name: str(flat[name])})
        assert space.baselines[0] == baseline
        assert name not in {field_of(left) for left in space.ranges()}


def test_a_setting_fixes_the_field_in_the_baseline_and_in_every_draw(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, BRANCHES), {"batch_size": "64", "label_smoothing": "0.1"})
    assert (space.baselines[0].batch_size, space.baselines[0].label_smoothing) == (64, 0.1)
    for params, names in draw(space, 20):
        assert (names["batch_size"], names["label_smoothing"]) == (64, 0.1)
        assert "batch_size" not in params
    assert "batch_size" not in space.ranges()


def test_a_setting_fixes_the_names_that_carry_a_variant(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, BRANCHES), {"optimizer/lr": "0.5"})
    assert not {"optimizer/adam/lr", "optimizer/sgd/lr", "optimizer/lr"} & set(space.ranges())
    assert {names["optimizer/name"] for _, names in draw(space, 20)} == {"adam", "sgd"}
    assert {names["optimizer/lr"] for _, names in draw(space, 20)} == {0.5}


def test_a_set_variant_leaves_only_its_own_branch(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, BRANCHES), {"optimizer/name": "sgd", "optimizer/momentum": "0.5"})
    assert set(space.ranges()) == {"optimizer/sgd/lr", "schedule/name", "schedule/step/every", "batch_size"}
    assert {(names["optimizer/name"], names["optimizer/momentum"]) for _, names in draw(space, 20)} == {("sgd", 0.5)}


def test_a_setting_of_one_branch_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, BRANCHES), {"schedule/every": "2"})
    assert "schedule/step/every" not in space.ranges()
    assert {(names["schedule/name"], names.get("schedule/every")) for _, names in draw(space, 20)} == {
        ("step", 2),
        ("cosine", None),
    }


def test_a_setting_may_lie_outside_the_range_that_it_replaces(tmp_path: Path) -> None:
    assert load_space(write(tmp_path, GOOD), {"optimizer/lr": "3"}).baselines[0].optimizer.lr == 3.0


def test_the_task_can_be_set(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, GOOD), {"dataset": "cifar100", "train_images": "500", "seed": "3"})
    task = {"dataset": "cifar100", "train_images": 500, "seed": 3}
    for _, names in draw(space, 5):
        assert names | task == names


def test_a_file_may_have_several_baselines(tmp_path: Path) -> None:
    other = 'BASELINES = [BASELINE, BASELINE.replace({"optimizer/lr": 0.002})]\n\ndef space'
    space = load_space(write(tmp_path, changed("def space", other)))
    assert [baseline.optimizer.lr for baseline in space.baselines] == [0.001, 0.002]


def test_the_defaults_are_others_where_a_cost_is_minimized_or_another_sampler_is_asked_for() -> None:
    names = {"sampler": "random", "scheduler": {"name": "none"}}
    for options, sampler, scheduler in (
        ({}, "forecast", "freeze-thaw"),
        ({"sampler": "forecast"}, "forecast", "freeze-thaw"),
        ({"sampler": "gp"}, "gp", "forecast"),
        ({"scheduler": "asha"}, "forecast", "asha"),
        ({"sampler": "gp", "scheduler": {"name": "none"}}, "gp", "none"),
        ({"minimize": "seconds"}, "tpe", "asha"),
        ({"minimize": "seconds", **names}, "random", "none"),
    ):
        search = Search.model_validate(options)
        assert (search.sampler, search.scheduler.name) == (sampler, scheduler)


def test_a_file_without_search_takes_the_defaults(tmp_path: Path) -> None:
    assert load_space(write(tmp_path, GOOD)).search == Search(num_trials=7)
    assert load_space(write(tmp_path, changed("SEARCH = ", "OTHER = "))).search == Search()


def test_a_description_has_the_files_docstring_the_settings_and_its_code(tmp_path: Path) -> None:
    description = load_space(
        write(tmp_path, '"""What it is.\n\n    a command\n"""\n' + GOOD), {"epochs": "3"}
    ).description
    code = f"```python\n{GOOD.strip()}\n```"
    assert description == f"What it is.\n\n    a command\n\nIn every trial: `epochs=3`.\n\n{code}"
    assert load_space(write(tmp_path, GOOD)).description == code
    assert load_space(write(tmp_path, "\ufeff" + GOOD)).description == code, "with a byte-order mark"


def test_a_space_keeps_the_text_of_its_file(tmp_path: Path) -> None:
    assert load_space(write(tmp_path, GOOD)).source == GOOD


BAD_FILES = {
    "syntax error": (changed("lr = ", "lr == = "), r"a_space\.py, line 9: SyntaxError: invalid syntax\.$"),
    "exception": (changed("def space", "1 / 0\ndef space"), r", line 8: ZeroDivisionError: division by zero\.$"),
    "exit": (changed("def space", "raise SystemExit(3)\ndef space"), r", line 8: SystemExit: 3\.$"),
    "missing module": (changed("def space", "import no_such_module\ndef space"), r", line 8: .*'no_such_module'\.$"),
    "exception in space": (changed("lr = ", "1 / 0; lr = "), r", line 9: ZeroDivisionError"),
    "bounds the wrong way round": (changed("1e-4, 1e-2", "1e-2, 1e-4"), r", line 9: ValueError: .*low"),
    "invalid recipe": (changed("epochs=2", "epochs=0"), r", line 3: epochs: input should be greater"),
    "unknown field": (changed("epochs=2", "epochs=2, epoch=2"), r", line 3: epoch is no field; the nearest is epochs"),
    "invalid recipe from space": (changed('"optimizer/lr": lr', '"optimizer/lr": -lr'), r", line 10: .*greater than 0"),
    "no baseline": (changed("BASELINE = ", "BASE = "), r"defines no BASELINE; add the recipe to beat"),
    "baseline of another kind": (changed("BASELINE = Recipe(", "BASELINE = dict("), r"must be a Recipe, not dict\.$"),
    "no space": (changed("def space", "def spaces"), r"defines no space\(trial\) function"),
    "space is no function": (GOOD + "\nspace = 3\n", r"defines no space\(trial\) function"),
    "no recipe returned": (changed("return BASELINE", "BASELINE"), r"must return a Recipe, not NoneType\.$"),
    "search of another kind": (GOOD + "\nSEARCH = {}\n", r"SEARCH must be a Search, not dict\.$"),
    "settings of another kind": (
        GOOD + "\nSETTINGS = {'epochs': 10}\n",
        r"SETTINGS must be a dict of fields and values",
    ),
    "invalid search": (changed("num_trials=7", "num_trials=0"), r", line 12: num_trials: input should be"),
    "unknown field of the search": (
        changed("num_trials=7", "num_trials=7, rungs=(0.5,)"),
        r", line 12: rungs is no field; the nearest is scheduler/rungs\.$",
    ),
    "option of another scheduler": (
        changed("num_trials=7", 'scheduler={"name": "freeze-thaw", "let_through": 0.1}'),
        r", line 12: scheduler/let_through is no field of freeze-thaw; the nearest is scheduler/rungs\.$",
    ),
    "scheduler without a name": (
        changed("num_trials=7", 'scheduler={"keep": 0.3}'),
        r", line 12: scheduler has no name; choose one of asha, .*freeze-thaw\.$",
    ),
    "unknown scheduler": (changed("num_trials=7", 'scheduler={"name": "ash"}'), r", line 12: scheduler: .*'hyperband'"),
    "baseline outside its range": (
        changed("1e-4, 1e-2", "1e-4, 5e-4"),
        r"the baseline's optimizer/lr=0\.001 lies outside its range \[0\.0001, 0\.0005\] log; widen",
    ),
    "baseline cannot come out": (
        changed('{"optimizer/lr": lr}', '{"optimizer/lr": lr, "epochs": 3}'),
        r"cannot give the baseline: epochs comes out as 3, but BASELINE has 2",
    ),
    "sampled name is no field": (
        changed('suggest_float("optimizer/lr"', 'suggest_float("optimizer/rate"'),
        r"samples 'optimizer/rate', which is no field; the nearest is optimizer/name",
    ),
    "sampled value is changed": (
        changed('"optimizer/lr": lr', '"optimizer/lr": lr / 2'),
        r"samples optimizer/lr=\S+ but the Recipe gets \S+; sample the value that the Recipe uses\.$",
    ),
    "another data set": (
        changed('"optimizer/lr": lr', '"optimizer/lr": lr, "dataset": "cifar10"'),
        r"changes dataset from the baseline's 'shapes' to 'cifar10'",
    ),
    "another number of images": (
        changed('"optimizer/lr": lr', '"optimizer/lr": lr, "train_images": 500'),
        r"changes train_images from the baseline's None to 500",
    ),
    "another seed": (changed('"optimizer/lr": lr', '"optimizer/lr": lr, "seed": 3'), r"changes seed from .* 0 to 3"),
}


def assert_one_sentence(message: str) -> None:
    assert "\n" not in message
    assert message.endswith(".")
    assert not message.endswith((": .", ".."))


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_refused_with_its_place_and_reason(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        load_space(path)
    assert_one_sentence(str(error.value))
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    "path", [Path("no/such/file.py"), Path("no_such_file"), Path()], ids=["file", "name", "folder"]
)
def test_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(
        UserError, match=f"There is no search-space file {re.escape(str(path))}; give the path"
    ) as error:
        load_space(path)
    assert_one_sentence(str(error.value))


def test_a_file_may_have_settings_of_its_own_which_the_command_line_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "\nSETTINGS = {'epochs': '5', 'batch_size': '50'}\n")
    space = load_space(path, {"epochs": "7"})
    assert space.settings == {"epochs": "7", "batch_size": "50"}
    assert (space.baselines[0].epochs, space.baselines[0].batch_size) == (7, 50)


def test_an_error_names_settings_as_the_source_of_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^SETTINGS epoch: the recipe has no such field; the nearest is epochs"):
        load_space(write(tmp_path, GOOD + "\nSETTINGS = {'epoch': '5'}\n"))


def test_a_file_that_is_not_python_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("BASELINE: 1", encoding="utf-8")
    with pytest.raises(UserError, match="is not a Python file"):
        load_space(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer/lrr": "1"}, r"^--set optimizer/lrr: the recipe has no such field; the nearest is optimizer/lr "),
        ({"optimizer/momentum": "0.5"}, r"^--set optimizer/momentum: the recipe has no such field; the nearest is "),
        ({"zzzz": "1"}, r"^--set zzzz: .*; choose one of augment/brightness, .*, train_images\.$"),
        ({"optimizer": "sgd"}, r"^--set optimizer: the recipe has no such field; the nearest is optimizer/"),
        ({"optimizer/name": "sdg"}, r"^optimizer/name=sdg is not valid; the nearest is sgd\.$"),
        ({"optimizer/lr": "fast"}, r"^optimizer/lr=fast is not valid: optimizer/lr: input should be a valid number"),
        ({"optimizer/lr": "-1"}, r"^optimizer/lr=-1 is not valid: .* greater than 0\.$"),
        ({"optimizer/lr": "inf"}, r"^optimizer/lr=inf is not valid: .* finite number\.$"),
        ({"optimizer/lr": ""}, r"^optimizer/lr= is not valid"),
        ({"epochs": "none"}, r"^epochs=none is not valid"),
        ({"dataset": "cifar"}, r"^dataset=cifar is not valid: .*'cifar10'"),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_with_the_field(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_space(write(tmp_path, GOOD), settings)
    assert_one_sentence(str(error.value))


@pytest.mark.parametrize(
    "text",
    [
        changed(
            'suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)', 'suggest_categorical("optimizer/lr", [0.1, 1.0])'
        ),
        changed('optimizer={"name": "adam", "lr": 0.001}', 'optimizer={"name": "adam", "lr": 0.001, "weight_decay": 0}')
        .replace(
            "    return BASELINE",
            '    decay = trial.suggest_float("optimizer/weight_decay", 1e-5, 1, log=True)\n    return BASELINE',
        )
        .replace('"optimizer/lr": lr', '"optimizer/lr": lr, "optimizer/weight_decay": decay'),
    ],
    ids=["choices", "zero on a logarithmic scale"],
)
def test_a_baseline_that_optuna_cannot_represent_lies_outside_its_range(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"the baseline's optimizer/\w+=0\S* lies outside its range"):
        load_space(write(tmp_path, text))


def test_baselines_that_are_not_a_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="BASELINE"):
        load_space(write(tmp_path, GOOD + "\nBASELINES = 5\n"))


def test_an_error_without_a_message_is_still_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 8: RuntimeError") as error:
        load_space(write(tmp_path, changed("def space", "raise RuntimeError\ndef space")))
    assert_one_sentence(str(error.value))


@pytest.mark.parametrize(
    ("distribution", "text"),
    [
        (FloatDistribution(0.001, 0.1, log=True), "[0.001, 0.1] log"),
        (FloatDistribution(0, 1, step=0.25), "[0, 1] step 0.25"),
        (optuna.distributions.IntDistribution(1, 6), "[1, 6]"),
        (optuna.distributions.IntDistribution(0, 6, step=2), "[0, 6] step 2"),
        (CategoricalDistribution(("adam", None, 3)), "{adam, None, 3}"),
    ],
    ids=str,
)
def test_a_range_is_formatted(distribution: optuna.distributions.BaseDistribution, text: str) -> None:
    assert format_range(distribution) == text


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (FloatDistribution(0.001, 0.1, log=True), (0.001, 0.05, 0.1), (0.0009, 0.11, 0, "0.05", None, True)),
        (FloatDistribution(0, 1, step=0.1), (0, 0.3, 0.7, 1), (0.35, 1.1)),
        (optuna.distributions.IntDistribution(0, 6, step=2), (0, 4, 6), (3, 8, -2, 2.5)),
        (CategoricalDistribution(("adam", None, 3)), ("adam", None, 3), ("sgd", 4)),
    ],
    ids=str,
)
def test_a_distribution_contains_the_values_that_it_can_give(
    distribution: optuna.distributions.BaseDistribution, inside: tuple[Value, ...], outside: tuple[Value, ...]
) -> None:
    assert all(contains(distribution, value) for value in inside)
    assert not any(contains(distribution, value) for value in outside)


def test_the_space_of_everything_starts_from_the_recipes_of_the_others() -> None:
    """The same recipes, except for the data set and the image size, which all of them share."""
    spaces = Path(__file__).parents[2] / "search_spaces"
    adapted: dict[str, Value] = {"dataset": "cifar10", "model/image_size": 32}
    names = ["resnet50_linear", "resnet50_two_phase", "resnet9", "resnet50_cifar100", "mini_resnet"]
    own = [load_space(spaces / f"{name}.py").baselines[0].replace(adapted, skip_unknown=True) for name in names]
    assert list(load_space(spaces / "all.py").baselines) == own


def test_some_frozen_trials_of_the_space_of_everything_have_features_that_can_be_kept() -> None:
    space = load_space(Path(__file__).parents[2] / "search_spaces" / "all.py")
    frozen = [recipe for recipe in space.draw_recipes(100) if recipe.finetune.name in ("frozen", "two-phase")]
    assert 0.2 < sum(recipe.has_fixed_features for recipe in frozen) / len(frozen) < 0.8


@pytest.mark.parametrize("model", ["resnet9", "mini_resnet", "resnet50"])
def test_a_set_variant_leaves_only_its_own_baselines(model: str) -> None:
    path = Path(__file__).parents[2] / "search_spaces" / "all.py"
    own = [baseline for baseline in load_space(path).baselines if baseline.model.name == model]
    space = load_space(path, {"model/name": model})
    assert list(space.baselines) == own
    assert {recipe.model.name for recipe in space.draw_recipes()} == {model}


@pytest.mark.parametrize("name", [member.model_fields["name"].default for member in get_args(get_args(Schedule)[0])])
def test_every_schedule_can_be_set_in_a_space_that_samples_schedules(name: str) -> None:
    path = Path(__file__).parents[2] / "search_spaces" / "mini_resnet.py"
    assert load_space(path, {"schedule/name": name}).baselines[0].schedule.name == name
