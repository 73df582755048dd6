"""The structure of the code: layers, sizes, commands."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from operator import gt

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
# The most files and lines that a reader of a command has to follow.
READ = {
    "train_image_classifier": (41, 7060),
    "eval_image_classifier": (36, 5585),
    "feature_extraction": (33, 5455),
    "classify": (32, 4890),
    "convert_dataset": (14, 2395),
}
# Only commands import what fetches from the internet, and these three do not.
DOWNLOADS = ("slim.weights", "slim.common.downloads")
OFFLINE = ("slim.train_image_classifier", "slim.eval_image_classifier", "slim.feature_extraction")
# Modules that notebooks and the demo import, with Matplotlib or scikit-learn.
WITHOUT_TENSORFLOW = (
    "demo.toy",
    "slim.transfer.domain_similarity",
    "slim.transfer.linear_classifier",
    "slim.transfer.plots",
    "slim.transfer.selection",
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
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "slim").rglob("*.py"))
}
TEXTS = {name: path.read_text("utf-8") for name, path in SOURCES.items()}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}
COMMANDS = {
    name
    for name, tree in TREES.items()
    if any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "command"
        for node in tree.body
    )
}
FUNCTIONS = [
    (f"{name}.{node.name}", node)
    for name, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
]


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


IMPORTS = {name: set(imports(name)) for name in SOURCES}


def closure(name: str) -> set[str]:
    """Returns the modules that a module imports, directly or not, and itself."""
    found, to_do = {"slim"}, {name}  # importing `slim` loads nothing yet
    while to_do:
        module = to_do.pop()
        found.add(module)
        to_do |= IMPORTS[module] - found
    return found - {"slim"}


def layer(name: str) -> int:
    """Returns the layer of a module; what `slim` itself exports stands above all."""
    room = f"{name}.".split(".")[1]
    return LAYERS.index(room) if room in LAYERS else len(LAYERS)


def test_no_import_runs_upward_or_in_a_circle_or_to_a_command():
    edges = {(name, module) for name in SOURCES for module in IMPORTS[name] if module != "slim"}
    inside = {(name, module) for name, module in edges if name not in COMMANDS}
    assert not {(name, module) for name, module in inside if module in COMMANDS}
    assert not {(name, module) for name, module in inside if layer(module) > layer(name)}
    TopologicalSorter(IMPORTS).prepare()


def test_only_commands_import_what_downloads():
    for name in OFFLINE:
        assert not [module for module in closure(name) if module.startswith(DOWNLOADS)]
    outside = {n for n in SOURCES.keys() - COMMANDS if not n.startswith("slim.weights")}
    assert not [n for n in outside if any(m.startswith("slim.weights") for m in IMPORTS[n])]


def test_a_reader_of_a_command_meets_little():
    """The files and lines that a command imports, directly or not; empty files do not count."""
    found = {}
    for name in READ:
        needed = {module for module in closure(f"slim.{name}") if TEXTS[module].count("\n") > 1}
        found[name] = (len(needed), sum(TEXTS[module].count("\n") for module in needed))
    assert not {name: f for name, f in found.items() if any(map(gt, f, READ[name]))}


def test_a_file_name_occurs_once():
    names = Counter(path.name for path in SOURCES.values())
    del names["__init__.py"], names["__main__.py"]
    assert max(names.values()) == 1, names.most_common(3)


def test_the_top_holds_commands_only():
    top = {path.stem for path in (ROOT / "slim").glob("*.py")} - {"__init__"}
    assert {f"slim.{name}" for name in top} <= COMMANDS


def test_nothing_is_long():
    lengths = {name: len(text.splitlines()) for name, text in TEXTS.items()}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE} == {}
    lengths = {name: f.end_lineno - f.lineno + 1 for name, f in FUNCTIONS}
    long = {name for name, length in lengths.items() if length > MAX_FUNCTION}
    assert {name for name in long if name.rpartition(".")[2] not in LONG_FUNCTIONS} == set()


def test_no_function_takes_many_positional_arguments():
    found = {}
    for name, function in FUNCTIONS:
        arguments = [*function.args.posonlyargs, *function.args.args]
        if arguments and arguments[0].arg in ("self", "cls"):
            arguments = arguments[1:]
        if len(arguments) > MAX_POSITIONAL and function.name not in PUBLISHED_SIGNATURES:
            found[name] = len(arguments)
    assert found == {}


def test_help_and_notebooks_do_not_wait_for_tensorflow():
    """TensorFlow takes 4 seconds to load, Matplotlib and scikit-learn one each."""
    code = (
        "import runpy, sys\n"
        "heavy = {'tensorflow', 'matplotlib', 'sklearn', 'scipy', 'ray', 'ot'}\n"
        f"for name in {sorted(COMMANDS)}:\n"
        "    sys.argv = ['command', '--help']\n"
        "    print('\\f')\n"
        "    try: runpy.run_module(name, run_name='__main__', alter_sys=True)\n"
        "    except SystemExit as end: assert end.code == 0, name\n"
        "    assert not heavy & set(sys.modules), name\n"
        f"import {', '.join(WITHOUT_TENSORFLOW)}\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    helps = done.stdout.split("\f")[1:]
    assert len(helps) == len(COMMANDS) and all("\n--" in text for text in helps)
