"""Every third-party system has its rooms, and the command line answers without waiting for any of them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cifar_tune"
FILES = sorted(PACKAGE.rglob("*.py"))

# Who may import what; a name that ends with a slash is a folder.
ROOMS = {
    "ray": ("search/",),
    "optuna": ("search/", "report/figures.py", "describe.py", "__init__.py"),
    "mlflow": ("tracking.py", "registry.py"),
    "torchvision": ("archive.py", "models.py"),
    "kornia": ("augment.py",),
    "pyarrow": ("parquet.py",),
    "PIL": ("parquet.py", "predict.py"),
    "safetensors": ("checkpoint.py", "classifier.py", "features.py", "weights.py"),
    "pandas": ("report/",),
    "plotly": ("report/",),
    "jinja2": ("report/",),
    "scipy": ("search/", "significance.py"),
    "typer": ("cli.py",),
    "filelock": ("archive.py", "datasets.py", "features.py", "store.py", "weights.py"),
}
# What must load no torch before it builds or trains something.
WITHOUT_TORCH = [
    "cifar_tune",
    "cifar_tune.recipe",
    "cifar_tune.models",
    "cifar_tune.optimizers",
    "cifar_tune.schedules",
    "cifar_tune.finetune",
    "cifar_tune.early_stopping",
    "cifar_tune.augment",
    "cifar_tune.search.space",
    "cifar_tune.search.record",
    "cifar_tune.search.extend",
    "cifar_tune.search.goal",
    "cifar_tune.search.limits",
    "cifar_tune.search.ends",
    "cifar_tune.search.resources",
    "cifar_tune.search.schedulers",
    "cifar_tune.shapes",
    "cifar_tune.images",
    "cifar_tune.archive",
    "cifar_tune.parquet",
    "cifar_tune.datasets",
    "cifar_tune.report.leaderboard",
    "cifar_tune.cost",
    "cifar_tune.display",
    "cifar_tune.store",
    "cifar_tune.cli",
]


def imports(nodes: Iterator[ast.AST]) -> set[str]:
    """Full names of the imported modules."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            found.add(node.module)
    return found


def top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """The statements that run when the module is imported: none in functions, none for the type checker."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded once the code has run."""
    ending = "\nimport sys\nprint('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_what_has_its_room_there(path: Path) -> None:
    here = path.relative_to(PACKAGE).as_posix()
    used = {name.partition(".")[0] for name in imports(ast.walk(parse(path)))}
    strangers = {name for name in used & ROOMS.keys() if not here.startswith(ROOMS[name])}
    assert strangers == set()


@pytest.mark.parametrize("name", ROOMS)
def test_every_room_is_used(name: str) -> None:
    for room in ROOMS[name]:
        files = [path for path in FILES if path.relative_to(PACKAGE).as_posix().startswith(room)]
        assert any(name in {found.partition(".")[0] for found in imports(ast.walk(parse(path)))} for path in files)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_imports_the_command_line(path: Path) -> None:
    assert "cifar_tune.cli" not in imports(ast.walk(parse(path)))


@pytest.mark.parametrize("name", ["training.py", "checkpoint.py", "recipe.py", "schedules.py", "augment.py"])
def test_training_knows_nothing_of_the_search(name: str) -> None:
    assert not {found for found in imports(ast.walk(parse(PACKAGE / name))) if found.startswith("cifar_tune.search")}


def test_the_command_line_imports_nothing_of_the_package_before_a_command_runs() -> None:
    own = {name for name in imports(top_level(parse(PACKAGE / "cli.py"))) if name.startswith("cifar_tune")}
    assert own == {"cifar_tune", "cifar_tune.errors"}  # the package itself loads nothing


def test_torch_is_imported_only_where_something_is_built() -> None:
    """One interpreter imports them all; the first that brings torch is named."""
    code = (
        "import importlib, sys\n"
        f"for name in {WITHOUT_TORCH!r}:\n"
        "    importlib.import_module(name)\n"
        "    found = {'torch', 'torchvision', 'ray', 'mlflow'} & set(sys.modules)\n"
        "    assert not found, f'{name} loads {found}'"
    )
    assert modules_after(code)


def test_the_search_space_contract_loads_no_torch() -> None:
    loaded = modules_after("from cifar_tune import Recipe, Search, Trial")
    assert "optuna" in loaded
    assert not {"torch", "ray", "mlflow"} & loaded


def test_a_report_waits_for_nothing_that_only_a_search_needs() -> None:
    code = "import sys, cifar_tune.report.findings, cifar_tune.report.text\n"
    slow = {"torch", "ray", "mlflow", "plotly", "matplotlib", "scipy.optimize", "scipy.spatial", "scipy.stats"}
    assert "pandas" in modules_after(code)
    assert modules_after(f"{code}assert not {slow!r} & set(sys.modules)")


def test_help_loads_no_library_that_takes_its_time() -> None:
    """Of the program and of each of its commands."""
    code = (
        "from cifar_tune.cli import app\n"
        "names = [command.name or command.callback.__name__ for command in app.registered_commands]\n"
        "for words in [[], *([name] for name in names)]:\n"
        "    app([*words, '--help'], prog_name='cifar-tune', standalone_mode=False)"
    )
    loaded = modules_after(code)
    assert "typer" in loaded
    assert not {"torch", "torchvision", "ray", "mlflow", "optuna", "pandas", "numpy", "pyarrow"} & loaded
