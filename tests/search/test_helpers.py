"""The modules beside a space file: found, kept, imported from their text, and gone again."""

import importlib
import sys
import threading
import types
from pathlib import Path

import optuna
import pytest

from cifar_tune.errors import UserError
from cifar_tune.search.space import Space, load_space
from cifar_tune.store import Store

COMMON = """from cifar_tune import Recipe

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"}, epochs=2, batch_size=100,
)
"""
SPACE = """from common import BASELINE


def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)})
"""
LAZY = """from common import BASELINE


def space(trial):
    import package.rates as rates

    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", *rates.BOUNDS, log=True)})
"""


def written(folder: Path, **texts: str) -> Path:
    """The space file of these texts by module name, in which `__` stands for a dot."""
    return write_all(folder, {f"{name.replace('__', '/')}.py": text for name, text in texts.items()})


def write_all(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "space.py"


def lr_of(space: Space) -> object:
    return space.baselines[0].flatten()["optimizer/lr"]


def test_a_module_beside_the_file_is_found_and_part_of_the_space(tmp_path: Path) -> None:
    space = load_space(written(tmp_path, space=SPACE, common=COMMON))
    assert lr_of(space) == 0.001
    assert space.helpers == {"common.py": COMMON}


def test_a_name_that_cannot_be_a_file_is_no_helper(tmp_path: Path) -> None:
    path = written(
        tmp_path, space=f"try:\n    import {'x' * 300}\nexcept ImportError:\n    pass\n{SPACE}", common=COMMON
    )
    assert load_space(path).helpers == {"common.py": COMMON}


def test_a_file_without_helpers_has_none(tmp_path: Path) -> None:
    (tmp_path / "unused.py").write_text("1 / 0", encoding="utf-8")
    path = written(tmp_path, space=COMMON + SPACE.partition("\n")[2], cifar_tune="1 / 0", math="1 / 0")
    path.write_text("import math\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_space(path).helpers == {}


@pytest.mark.parametrize("start", ["", "from __future__ import annotations\n"])
def test_helpers_of_helpers_and_packages_are_found_also_when_they_are_imported_late(tmp_path: Path, start: str) -> None:
    texts = {
        "space.py": start + LAZY,
        "common.py": "from values import LR\n" + COMMON.replace("0.001", "LR"),
        "values.py": "LR = 0.002\n",
        "package/__init__.py": "",
        "package/rates.py": "from . import more\nfrom .more.deep import LOW\nBOUNDS = (LOW, more.HIGH)\n",
        "package/more/__init__.py": "HIGH = 1e-2\n",
        "package/more/deep.py": "from ..names import LOW\n",
        "package/names.py": "LOW = 1e-4\n",
        "package/unused.py": "1 / 0\n",
    }
    space = load_space(write_all(tmp_path, texts))
    assert lr_of(space) == 0.002
    assert set(space.helpers) == texts.keys() - {"space.py", "package/unused.py"}
    assert space.sample(optuna.create_study().ask()).model.name == "mini_resnet"


def test_a_folder_without_an_init_is_a_package_too(tmp_path: Path) -> None:
    path = written(
        tmp_path, space="from parts.common import BASELINE\n" + SPACE.partition("\n")[2], parts__common=COMMON
    )
    assert load_space(path).helpers == {"parts/common.py": COMMON}


def test_files_in_one_process_may_have_helpers_of_one_name_and_leave_no_trace(tmp_path: Path) -> None:
    before = (list(sys.path), {name for name in sys.modules if "cifar_tune_space" not in name})
    spaces = []
    for lr in (0.002, 0.003):
        texts = {"common": COMMON.replace("0.001", str(lr)), "package__rates": f"BOUNDS = ({lr}, 0.01)"}
        spaces.append(load_space(written(tmp_path / str(lr), space=LAZY, **texts)))
    assert [lr_of(space) for space in spaces] == [0.002, 0.003]
    trial = optuna.trial.FixedTrial({"optimizer/lr": 0.004})
    for space in spaces:
        space.sample(trial)
        assert space.ranges()["optimizer/lr"].low == lr_of(space)  # type: ignore[attr-defined]
    after = (list(sys.path), {name for name in sys.modules if "cifar_tune_space" not in name})
    assert after == before
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("common")
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_link_to_a_space_file_finds_its_helpers(tmp_path: Path) -> None:
    path = written(tmp_path / "spaces", space=SPACE, common=COMMON)
    (tmp_path / "link.py").symlink_to(path)
    assert load_space(tmp_path / "link.py").helpers == {"common.py": COMMON}
    written(tmp_path / "spaces", common="1 / 0")
    with pytest.raises(UserError, match=r"spaces/common\.py, line 1: ZeroDivisionError"):
        load_space(tmp_path / "link.py")


def test_a_space_is_sampled_while_another_thread_imports(tmp_path: Path) -> None:
    """A search opens MLflow in a thread, whose hundreds of modules appear while the space is asked for recipes."""
    space, is_over = load_space(written(tmp_path, space=SPACE, common=COMMON)), threading.Event()

    def import_all() -> None:
        while not is_over.is_set():
            names = [f"imported_{number}" for number in range(200)]
            sys.modules.update({name: types.ModuleType(name) for name in names})
            for name in names:
                del sys.modules[name]

    thread = threading.Thread(target=import_all)
    thread.start()
    try:
        for _ in range(500):
            space.sample(optuna.trial.FixedTrial({"optimizer/lr": 0.004}))
    finally:
        is_over.set()
        thread.join()


def test_a_module_of_that_name_elsewhere_is_neither_used_nor_lost(tmp_path: Path) -> None:
    import helpers

    path = written(tmp_path, space=SPACE.replace("common", "helpers"), helpers=COMMON)
    assert load_space(path).helpers == {"helpers.py": COMMON}
    assert sys.modules["helpers"] is helpers


def test_a_helper_that_was_changed_a_moment_ago_is_read_anew(tmp_path: Path) -> None:
    path = written(tmp_path, space=SPACE, common=COMMON)
    assert lr_of(load_space(path)) == 0.001
    assert lr_of(load_space(written(tmp_path, common=COMMON.replace("0.001", "0.002")))) == 0.002


def test_the_copy_in_a_store_gives_the_same_space(store: Store, tmp_path: Path) -> None:
    space = load_space(written(tmp_path, space=LAZY, common=COMMON, package__rates="BOUNDS = (1e-4, 1e-2)"))
    store.save_space("tiny", space.source, space.helpers)
    copy = load_space(store.space("tiny"))
    assert (copy.source, copy.helpers, copy.baselines) == (space.source, space.helpers, space.baselines)


@pytest.mark.parametrize(
    ("helper", "message"),
    [
        ("x ==== 1\n", "common.py, line 1: SyntaxError: invalid syntax."),
        (COMMON + "1 / 0\n", "common.py, line 7: ZeroDivisionError: division by zero."),
        (
            COMMON.replace("epochs=2", "epochs=0"),
            "common.py, line 3: epochs: input should be greater than or equal to 1.",
        ),
        ("from nowhere import x\n", "common.py, line 1: ModuleNotFoundError: No module named 'nowhere'."),
        ("", "space.py, line 1: ImportError: cannot import name 'BASELINE' from 'common'"),
    ],
)
def test_an_error_names_the_line_of_the_helper(tmp_path: Path, helper: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        load_space(written(tmp_path, space=SPACE, common=helper))
    assert str(refused.value).startswith(f"{tmp_path}/{message}")
    assert "common" not in sys.modules
