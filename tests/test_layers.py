"""The import rules of the house, read from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each package may import of ours, itself aside.
MAY_IMPORT = {
    "orinspect_edge_runtime": set(),
    "orinspect_jetson": {"orinspect_edge_runtime"},
    "orinspect_train": {"orinspect_edge_runtime"},
    "orinspect_export": {"orinspect_edge_runtime", "orinspect_train"},
}
TRAINING = {"torch", "torchvision", "timm", "lightly", "pytorch_lightning"}
# The predictor in jetson reads ONNX files, on a desktop; the runtime must do without.
NEVER = {"orinspect_edge_runtime": TRAINING | {"onnx", "sklearn", "scipy"}, "orinspect_jetson": TRAINING}
PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CODE = sorted(path for name in MAY_IMPORT for path in (ROOT / name.removeprefix("orinspect_") / name).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in CODE}


def imports(node: ast.AST, *, when_run: bool = True) -> Iterator[str]:
    """Modules that are imported below a node; without `when_run` only those that importing the file itself imports."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            name = str(child.module)
            yield from (f"{name}.{a.name}" if f"{name}.{a.name}" in MODULES else name for a in child.names)
        elif when_run or not (
            isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"))
        ):
            yield from imports(child, when_run=when_run)


TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}
IMPORTS = {name: set(imports(tree)) for name, tree in TREES.items()}


def top(module: str) -> str:
    return module.partition(".")[0]


def test_the_code_was_found() -> None:
    assert {top(name) for name in MODULES} == set(MAY_IMPORT)
    assert "numpy" in IMPORTS["orinspect_edge_runtime.preprocess"]
    assert "onnxruntime" in IMPORTS["orinspect_edge_runtime.backends.onnxruntime"], "imports in functions are seen"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_package_may(name: str) -> None:
    ours = {top(module) for module in IMPORTS[name] if top(module) in MAY_IMPORT} - {top(name)}
    assert ours <= MAY_IMPORT[top(name)]
    if "orinspect_train" in ours:
        assert name == "orinspect_export.graph", "export meets train in one file"
    assert not {top(module) for module in IMPORTS[name]} & NEVER.get(top(name), set())


@pytest.mark.parametrize("name", MODULES)
def test_nobody_imports_a_command_line(name: str) -> None:
    commands = {module for module in IMPORTS[name] if top(module) in MAY_IMPORT} & {
        module for module in MODULES if module.rpartition(".")[2] in ("cli", "commands") or module.endswith("_cli")
    }
    assert not commands


def test_there_are_no_import_circles() -> None:
    graph = {name: {m for m in imports(tree, when_run=False) if m in MODULES} for name, tree in TREES.items()}
    while leaves := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in leaves}
    assert sorted(graph) == []


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_pickled(name: str) -> None:
    nodes = list(ast.walk(TREES[name]))
    used = {
        ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute) and top(ast.unparse(node)) in PICKLERS
    }
    # Torch raises pickle's own error for a file that is damaged: catching it is not reading a pickle.
    assert used <= {"pickle.UnpicklingError"}
    assert not {node.module for node in nodes if isinstance(node, ast.ImportFrom)} & PICKLERS
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options.get("allow_pickle", "False") == "False"
        if ast.unparse(call.func) == "torch.load":
            assert options.get("weights_only") == "True", f"line {call.lineno}"


def test_every_thing_lives_with_its_owner() -> None:
    names = {part.removesuffix(".py") for path in CODE for part in path.relative_to(ROOT).parts}
    assert not names & {"common", "util", "utils", "helper", "helpers", "misc", "shared"}
