"""The part of a space file's code that decides the results of its trials; a search goes on after edits of the rest.

Left out are comments, layout, docstrings, type annotations, the budget, where this package's names are imported from,
and imports and constants of the space file that nothing reads.
"""

import ast
from collections.abc import Iterator, Mapping, Set
from typing import Any

BUDGET = {"num_trials", "minutes_per_trial"}  # of a Search: how much is trained, and not what comes of it
CONTRACT = {"BASELINE", "BASELINES", "SEARCH", "SETTINGS", "space"}  # what this package reads of a space file
CONSTANT = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
DYNAMIC = {"eval", "exec", "globals", "locals", "vars"}  # code that calls these may read any name


def same_results(before: str, now: str, *, is_helper: bool = False) -> bool:
    """Whether two texts of a space file, or of a helper of it, give the same trials."""
    return before == now or _meaning(before, is_helper) == _meaning(now, is_helper)


def same_settings(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether two sets of settings fix the same fields at the same values, whichever way a number is written."""
    return {name: _number(text) for name, text in before.items()} == {name: _number(now[name]) for name in now}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _meaning(source: str, is_helper: bool) -> str:
    try:
        tree = _Simplified().visit(ast.parse(source.removeprefix("\ufeff")))  # a byte-order mark
    except (SyntaxError, ValueError, RecursionError):  # in a helper that was never needed
        return source
    if not is_helper:  # other files may read any name of a helper
        tree.body = list(_that_counts(tree))
    return ast.dump(tree)


class _Simplified(ast.NodeTransformer):
    """Takes docstrings, annotations, the budget and imports from this package out of code."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self.generic_visit(_without_docstring(node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(_without_docstring(node))

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Keep the annotations of its fields, which a dataclass reads."""
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        _without_docstring(node)
        node.body = [each if each in fields else self.visit(each) for each in node.body]
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        return ast.copy_location(ast.Assign([node.target], node.value), node) if node.value else None

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Leave out what only a type checker reads."""
        self.generic_visit(node)
        is_for_types = isinstance(node.test, ast.Name | ast.Attribute) and "TYPE_CHECKING" in ast.unparse(node.test)
        return node.orelse if is_for_types else node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        is_own = not node.level and node.module is not None and node.module.partition(".")[0] == "cifar_tune"
        return None if is_own else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        if name == "Search":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in BUDGET]
        return node


def _without_docstring(node: Any) -> Any:  # noqa: ANN401 - a module, a class or a function
    if ast.get_docstring(node) is not None:
        node.body = node.body[1:]
    return node


def _that_counts(tree: ast.Module) -> Iterator[ast.stmt]:
    """The module's statements without imports and constants that nothing reads."""
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    if DYNAMIC & read:
        yield from tree.body
        return
    read |= CONTRACT
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            statement.names = [alias for alias in statement.names if _bound_name(alias) in read | {"*"}]
            if statement.names:
                yield statement
        elif not (isinstance(statement, ast.Assign) and _has_no_effect(statement, read)):
            yield statement


def _bound_name(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _has_no_effect(assignment: ast.Assign, read: Set[str]) -> bool:
    """Whether it gives a constant to names that nothing reads, or is what holds without it, `SEARCH = Search()`."""
    is_constant = all(isinstance(node, CONSTANT) for node in ast.walk(assignment.value))
    names = {target.id if isinstance(target, ast.Name) else None for target in assignment.targets}
    return (is_constant and not names & {*read, None}) or ast.unparse(assignment) == "SEARCH = Search()"
