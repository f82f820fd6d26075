"""Which package may import which: deployments → flows → tasks → deeplab, and TensorFlow stays in the stages."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ["deeplab", "tasks", "flows", "deployments"]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
}


@cache
def imported(module: str, *, lazy: bool = True) -> frozenset[str]:
    """Absolute names a module imports; without ``lazy`` only those imported when it is."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else _at_import(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def _at_import(tree: ast.AST):
    """The statements that run when the module is imported: all but those in functions and for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _at_import(node)


def reached(module: str) -> dict[str, str]:
    """Every name that importing a module imports in the end -> the module of ours that does."""
    found: dict[str, str] = {}
    waiting, seen = [module], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        # Importing a.b.c runs a and a.b too.
        parts = current.split(".")
        waiting.extend(".".join(parts[:count]) for count in range(1, len(parts)))
        if current in MODULES:
            names = imported(current, lazy=False)
            found.update(dict.fromkeys(names, current))
            waiting.extend(names)
    return found


def top(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module):
    above = LAYERS[LAYERS.index(top(module)) + 1 :]
    wrong = sorted(name for name in imported(module) if top(name) in above)
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize("module", [module for module in MODULES if top(module) == "deeplab"])
def test_the_library_knows_no_orchestrator(module):
    wrong = sorted(name for name in imported(module) if top(name) in {"prefect", "valohai", "valohai_yaml"})
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize("module", [module for module in MODULES if top(module) != "deeplab"])
def test_the_parent_process_never_imports_tensorflow(module):
    wrong = {name: where for name, where in reached(module).items() if top(name) in {"tensorflow", "tf_slim"}}
    assert not wrong, f"importing {module} imports {wrong}"


def test_the_walk_sees_tensorflow_where_it_is():
    assert any(top(name) == "tensorflow" for name in reached("deeplab.training.train"))


@pytest.mark.parametrize("name", ["tensorflow", "valohai_yaml", "jinja2", "azure.storage.blob"])
def test_importing_the_flow_leaves_out_what_not_every_run_needs(name):
    code = f"import sys, flows.train; raise SystemExit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0
