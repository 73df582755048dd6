"""The structure of the code: layers, sizes, commands."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

from tests.support import ROOT

# A module imports from its own room and from those above it here.
LAYERS = (
    "common",
    "datasets",
    "preprocessing",
    "nets",
    "checkpoints",
    "deployment",
    "features",
    "training",
    "evaluation",
    "serving",
    "transfer",
)
MAX_FILE, MAX_FUNCTION, MAX_POSITIONAL = 450, 120, 5
# The signatures of networks are published.
LONG_FUNCTIONS = {"inception_v3", "resnet_v2"}
PUBLISHED_SIGNATURES = {
    "inception_resnet_v2",
    "inception_resnet_v2_base",
    "inception_v3",
    "inception_v3_base",
    "inception_v4",
    "resnet_v2",
}

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "slim").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}
COMMANDS = {
    name
    for name, tree in TREES.items()
    if any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "command"
        for node in tree.body
    )
}


def imports(name: str) -> Iterator[str]:
    """Yields the modules of this project that a module imports anywhere in its code."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [module if module in SOURCES else node.module for module in below]
        else:
            continue
        yield from (module for module in modules if module.split(".")[0] == "slim")


def layer(name: str) -> int:
    """Returns the layer of a module; the top stands above all."""
    if name == "slim":
        return 0
    room = name.split(".")[1:-1] or name.split(".")[1:]
    return LAYERS.index(room[0]) if room and room[0] in LAYERS else len(LAYERS)


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield name, node


def test_no_import_runs_upward():
    found = {
        f"{name} imports {module}"
        for name in SOURCES.keys() - COMMANDS
        for module in imports(name)
        if layer(module) > layer(name)
    }
    assert not found


def test_no_module_imports_a_command():
    found = {f"{name} imports {m}" for name in SOURCES for m in imports(name) if m in COMMANDS}
    assert not found


def test_no_circular_import():
    TopologicalSorter({name: set(imports(name)) for name in SOURCES}).prepare()


def test_the_top_holds_commands_only():
    top = {name for name in SOURCES if name.count(".") == 1} - {"slim.__init__"}
    assert top <= COMMANDS


def test_no_long_file():
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in SOURCES.items()}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE} == {}


def test_no_long_function():
    lengths = {f"{name}.{f.name}": f.end_lineno - f.lineno + 1 for name, f in functions()}
    long = {name for name, length in lengths.items() if length > MAX_FUNCTION}
    assert {name for name in long if name.rpartition(".")[2] not in LONG_FUNCTIONS} == set()


def test_no_function_takes_many_positional_arguments():
    found = {}
    for name, function in functions():
        arguments = [*function.args.posonlyargs, *function.args.args]
        if arguments and arguments[0].arg in ("self", "cls"):
            arguments = arguments[1:]
        if len(arguments) > MAX_POSITIONAL and function.name not in PUBLISHED_SIGNATURES:
            found[f"{name}.{function.name}"] = len(arguments)
    assert found == {}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_does_not_wait_for_tensorflow(name):
    """TensorFlow takes 4 seconds to load, Matplotlib and scikit-learn one each."""
    code = (
        "import runpy, sys\n"
        "sys.argv = ['command', '--help']\n"
        f"try: runpy.run_module('{name}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'tensorflow', 'matplotlib', 'sklearn', 'scipy', 'ray', 'ot'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout
