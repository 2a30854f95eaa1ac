"""README.md and docs/ say what is there: their links, paths, commands, flags and code are checked against the code."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from cifar_tune.cli import app
from cifar_tune.search.space import load_space

ROOT = Path(__file__).parent.parent
README, ARCHITECTURE = ROOT / "README.md", ROOT / "docs" / "architecture.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_README_LINES, MAX_WORDS = 130, 25

LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
PATH = re.compile(r"\b(?:cifar_tune|search_spaces|analysis|tests|docs)/[\w./-]*[\w/]")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(.+)$", re.MULTILINE)
INLINE = re.compile(r"`(cifar-tune [^`\n]+)`")
NO_PROSE = re.compile(r"^(?:#| *\||    ).*$", re.MULTILINE)  # headings, tables and indented code
PARAGRAPH_END = re.compile(r"\n\s*\n|^\s*(?:-|\d+\.) ", re.MULTILINE)  # or the next item of a list
COMMAND = re.compile(r"^(?:pip install uv && )?(?:uv run )?cifar-tune (.+)$", re.MULTILINE)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def fenced_blocks(page: Path, language: str) -> list[str]:
    return [block for written_in, block in FENCED.findall(read(page)) if written_in == language]


def command_lines(page: Path) -> list[str]:
    """What follows `cifar-tune` in the page's blocks of shell commands and in its inline code."""
    text = read(page)
    indented, inline = INDENTED.findall(FENCED.sub("", text)), INLINE.findall(text)
    return COMMAND.findall("\n".join([*fenced_blocks(page, "sh"), *indented, *inline]).replace("\\\n", " "))


def sentences(page: Path) -> Iterator[str]:
    """The prose of a page. Code within it counts as one word; a link counts as its text."""
    prose = re.sub(r"\]\([^)]*\)", "", re.sub(r"`[^`]+`", "code", NO_PROSE.sub("", FENCED.sub("", read(page)))))
    for paragraph in PARAGRAPH_END.split(prose):
        yield from re.split(r"(?<=[.!?])[)*\"]* ", " ".join(paragraph.split()))


def modules_in_the_tree() -> Iterator[str]:
    """The modules in the tree of the architecture page, by their paths in the package."""
    (tree,) = fenced_blocks(ARCHITECTURE, "text")
    folder = ""
    for line in tree.splitlines()[1:]:
        name = line.split()[0]
        if not line.startswith("    "):
            folder = name if name.endswith("/") else ""
        if name.endswith(".py"):
            yield folder + name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file(page: Path) -> None:
    assert [link for link in LINK.findall(read(page)) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_path_of_the_repository_that_is_named_exists(page: Path) -> None:
    assert [path for path in PATH.findall(read(page)) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("line", dict.fromkeys(line for page in PAGES for line in command_lines(page)))
def test_a_command_its_flags_and_its_settings_exist(line: str) -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    name, *arguments = shlex.split(line, comments=True)
    options = group.commands[name].make_context(name, arguments).params  # parsed, and not run
    if name in ("run", "describe") and (ROOT / options["space"]).is_file():
        load_space(ROOT / options["space"], dict(pair.split("=", 1) for pair in options["settings"] or []))


@pytest.mark.parametrize("code", [block for page in PAGES for block in fenced_blocks(page, "python")])
def test_python_compiles_and_search_spaces_load(code: str, tmp_path: Path) -> None:
    compile(code, "block", "exec")
    if "def space(" in code:
        (tmp_path / "space.py").write_text(code, encoding="utf-8")
        load_space(tmp_path / "space.py")


@pytest.mark.parametrize("command", ["cifar-tune run search_spaces/quickstart.py", "pytest"])
def test_the_commands_that_ci_takes_from_the_readme_are_there(command: str) -> None:
    assert f"\n    pip install uv && uv run {command}\n" in read(README)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_sentence_has_at_most_25_words(page: Path) -> None:
    counts = {sentence: len(re.findall(r"\S*\w\S*", sentence)) for sentence in sentences(page)}
    assert [sentence for sentence, num_words in counts.items() if num_words > MAX_WORDS] == []


def test_the_readme_is_short() -> None:
    assert len(read(README).splitlines()) <= MAX_README_LINES


def test_the_architecture_page_names_every_module_once() -> None:
    files = [path.relative_to(ROOT / "cifar_tune") for path in (ROOT / "cifar_tune").rglob("*.py")]
    modules = [file.as_posix() for file in files if file.name != "__init__.py" or file.parent == Path()]
    assert sorted(modules_in_the_tree()) == sorted(modules)


def test_every_test_that_the_page_of_faults_names_exists() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "faults.md").read_text(encoding="utf-8"))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 40
    assert set(named) <= defined, set(named) - defined
