"""Folders are layers, every third-party system has its room, and the command line answers without waiting for any."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import cifar_tune

PACKAGE = Path(__file__).parent.parent / "cifar_tune"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top down: nothing imports what stands above it.
LAYERS = [
    "__main__",
    "cli",
    "commands",
    "report",
    "tracking",
    "evaluation",
    "search",
    "trials",
    "training",
    "recipe",
    "data",
    "store",
    "guard",
    "provenance",
    "wording",
    "machine",
    "errors",
    "interrupts",
]
# Who may import what; a name that ends with a slash is a folder.
ROOMS = {
    "ray": ("search/",),
    "optuna": (
        "search/",
        "trials/",
        "report/figures.py",
        "report/value_figures.py",
        "commands/describe.py",
        "evaluation/reruns.py",
        "__init__.py",
    ),
    "mlflow": ("tracking/",),
    "torchvision": ("data/download.py", "recipe/models.py", "recipe/trivial_augment.py"),
    "kornia": ("recipe/augment.py",),
    "pyarrow": ("data/parquet.py", "data/own_parquet.py"),
    "PIL": ("data/parquet.py", "data/pixels.py"),
    "safetensors": ("training/",),
    "pandas": ("report/",),
    "plotly": ("report/",),
    "jinja2": ("report/",),
    "scipy": ("data/svhn.py", "search/", "evaluation/significance.py"),
    "typer": ("cli.py",),
    "filelock": ("data/", "training/", "store.py"),
}
# What may load torch, ray or mlflow when it is imported; all else loads them when something is built or trained.
HEAVY = (
    "cli.py",  # run below with every command's --help
    "training/",
    "tracking/",
    "commands/debug.py",
    "commands/describe.py",
    "commands/plan.py",
    "commands/predict.py",
    "evaluation/export.py",
    "recipe/layers.py",
    "recipe/muon.py",
    "search/gaussian_process.py",
    "search/ray_tune.py",
    "search/ray_warm.py",
    "search/ray_worker.py",
)


def name_of(path: Path) -> str:
    """`search/space.py`."""
    return path.relative_to(PACKAGE).as_posix()


def module_of(path: Path) -> str:
    """`cifar_tune.search.space`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer_of(path: Path) -> int:
    """Its place from the top; the package itself, and what old space files import, may import anything."""
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    return LAYERS.index(name) if name in LAYERS else 0


def own_modules(names: set[str]) -> set[str]:
    """Those of this package, without the package itself."""
    return {name for name in names if name.startswith("cifar_tune.")}


MODULES = {module_of(path) for path in FILES}


def imports(nodes: Iterator[ast.AST]) -> set[str]:
    """Full names of the imported modules."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} & MODULES or {node.module}
    return names


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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_what_has_its_room_there(path: Path) -> None:
    here = name_of(path)
    used = {name.partition(".")[0] for name in imports(ast.walk(parse(path)))}
    strangers = {name for name in used & ROOMS.keys() if not here.startswith(ROOMS[name])}
    assert strangers == set()


@pytest.mark.parametrize("name", ROOMS)
def test_every_room_is_used(name: str) -> None:
    for room in ROOMS[name]:
        files = [path for path in FILES if name_of(path).startswith(room)]
        assert any(name in {found.partition(".")[0] for found in imports(ast.walk(parse(path)))} for path in files)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_imports_what_stands_above_it(path: Path) -> None:
    here = layer_of(path)
    above = {name for name in own_modules(imports(ast.walk(parse(path)))) if LAYERS.index(name.split(".")[1]) < here}
    assert above == set()


def test_imports_run_in_no_circle() -> None:
    """Neither those in functions nor those for the type checker; the package itself hands out what it imports."""
    graph = {module_of(path): own_modules(imports(ast.walk(parse(path)))) for path in FILES if path.parent != PACKAGE}
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_the_command_line_imports_nothing_of_the_package_before_a_command_runs() -> None:
    own = {name for name in imports(top_level(parse(PACKAGE / "cli.py"))) if name.startswith("cifar_tune")}
    light = {
        "cifar_tune",
        "cifar_tune.errors",
        "cifar_tune.guard",
        "cifar_tune.search.ray_settings",
    }  # they load nothing themselves
    assert own == light


@pytest.mark.slow
def test_torch_ray_and_mlflow_are_imported_only_where_they_are_at_work() -> None:
    """One interpreter imports all other modules; the first that brings one of them is named."""
    names = [module_of(path) for path in FILES if not name_of(path).startswith(HEAVY)]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    found = {'torch', 'torchvision', 'ray', 'mlflow'} & set(sys.modules)\n"
        "    assert not found, f'{name} loads {found}'"
    )
    assert modules_after(code)


def test_the_search_space_contract_loads_no_torch() -> None:
    loaded = modules_after("from cifar_tune import Recipe, Search, Trial")
    assert "optuna" in loaded
    assert not {"torch", "ray", "mlflow"} & loaded


@pytest.mark.slow
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


SPACES = sorted((PACKAGE.parent / "search_spaces").glob("*.py"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_search_space_imports_from_the_packages_root_alone(path: Path) -> None:
    assert own_modules(imports(ast.walk(parse(path)))) == set()


@pytest.mark.parametrize("line", ["from cifar_tune.augment import Augment", "from cifar_tune.recipe import Recipe"])
def test_space_files_of_version_0_1_find_what_they_import(line: str) -> None:
    namespace: dict[str, Any] = {}
    exec(line, namespace)
    name = line.rpartition(" ")[2]
    assert namespace[name] is getattr(cifar_tune, name)
