"""Imports run one way, downwards, and only to what an installation has: an AST walk over the package."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pydarknet"

# The floors of the house, from the ground up: a module imports from lower floors only. Modules are named without the
# leading "pydarknet."; a name with a * is a whole package, whose modules may also import each other, without circles.
# Not every module need be there yet.
FLOORS = [
    ["errors", "dialect", "files"],
    ["activations", "cfg", "checkpoint", "limits", "locks", "optimizers", "parameters", "randomness", "crand",
     "text_files", "threads", "validation", "weights"],
    ["corpus", "schedules", "layers.base"],
    ["layers.batchnorm", "layers.elementwise", "layers.output", "layers.projection", "layers.tape"],
    ["layers.connected", "layers.lstm_tape"],
    ["layers.gru", "layers.lstm", "layers.rnn"],
    ["layers.crnn"],
    ["layers.registry"],
    ["network"],
    ["adaptation", "evaluate", "resume", "sample", "weight_tools", "interop*"],
    ["parallel", "trainer", "visualize"],  # on one floor: the trainer is handed its reducer, it imports none
    ["backups"],
    ["layers", ""],  # the packages' own __init__: what stands there is for users, not for the modules below
    ["cli*"],
    ["__main__"],
]
EVERYWHERE = {"numpy"}
IN_THE_CLI = {"click", "tqdm"}


def floor_of(module):
    """The number of the module's floor, None if the table has not got it."""
    for number, names in enumerate(FLOORS):
        if module in names or module.split(".")[0] + "*" in names:
            return number
    return None


def full(module):
    return f"pydarknet.{module}".rstrip(".")


def read_package():
    """The source of every module, by its name without the leading ``pydarknet.``."""
    sources = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


def imports_of(source, modules):
    """Yield (line, name, ours) of every import, also inside functions; ``ours`` names without ``pydarknet.``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from package import name` imports the module `name`, if there is one, else the package's own __init__.
            longer = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("pydarknet.") in modules else base for name in longer]
        else:
            continue
        for name in names:
            ours = name.split(".")[0] == "pydarknet"
            yield node.lineno, name.partition(".")[2] if ours else name, ours


def complaints(sources):
    """What is wrong with the imports of a package, in words; ``sources`` by module."""
    found = []
    for module, source in sources.items():
        floor = floor_of(module)
        if floor is None:
            found.append(f"{full(module)} is new: add it to FLOORS in {Path(__file__).name}, above all it imports")
            continue
        for line, name, ours in imports_of(source, sources):
            where = f"{full(module)}, line {line}:"
            package = module.split(".")[0]
            if name.startswith("."):
                found.append(f"{where} write the import of {name} in full, from pydarknet on")
            elif not ours:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names | EVERYWHERE | (IN_THE_CLI if package == "cli" else set()):
                    found.append(f"{where} {top} is not to be imported here: numpy is everywhere, "
                                 f"click and tqdm are in cli, nothing else is at run time")
            elif floor_of(name) is None:
                found.append(f"{where} there is no {full(name)} in FLOORS in {Path(__file__).name}")
            elif floor_of(name) >= floor and not (f"{package}*" in FLOORS[floor] and name.split(".")[0] == package):
                found.append(f"{where} imports {full(name)}, which is not on a lower floor "
                             f"(floor {floor_of(name)}, this is floor {floor})")
    return found


def test_imports_run_downwards():
    assert not complaints(read_package()), "\n".join(["", *complaints(read_package())])


def test_there_are_no_circles():
    sources = read_package()
    graph = {module: {name for _, name, ours in imports_of(source, sources) if ours}
             for module, source in sources.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(("module", "source", "complaint"), [
    ("errors", "from pydarknet.cfg import parse_cfg", "pydarknet.errors, line 1: imports pydarknet.cfg, which"),
    ("corpus", "import os\ndef f():\n    from pydarknet import schedules", "line 3: imports pydarknet.schedules"),
    ("network", "from pydarknet import Corpus", "line 1: imports pydarknet, which"),
    ("network", "import pydarknet", "line 1: imports pydarknet, which"),
    ("trainer", "import pydarknet.parallel", "imports pydarknet.parallel"),
    ("network", "from .cfg import parse_cfg", "write the import of .cfg in full"),
    ("network", "from . import cfg", "write the import of . in full"),
    ("cfg", "import numpy.linalg, yaml.loader", "yaml is not to be imported here"),
    ("trainer", "def f():\n    from tqdm import tqdm", "line 2: tqdm is not to be imported here"),
    ("novelty", "", "pydarknet.novelty is new: add it to FLOORS"),
    ("layers.novelty", "", "pydarknet.layers.novelty is new"),
    ("cfg", "from pydarknet.novelty import x", "there is no pydarknet.novelty in FLOORS"),
])
def test_the_walk_sees(module, source, complaint):
    sources = {"": "", "schedules": "", "cfg": "", "parallel": "", module: source}
    (found,) = complaints(sources)
    assert complaint in found


@pytest.mark.parametrize(("module", "source"), [
    ("cli.train", "import click, tqdm, numpy\nfrom pydarknet.cli.options import x\nfrom pydarknet import __version__"),
    ("interop.onnx", "from pydarknet.interop.names import x\nfrom pydarknet.network import Network"),
    ("layers.lstm", "from pydarknet.layers import base\nfrom collections.abc import Iterable\nimport os.path"),
    ("", "from pydarknet.trainer import Trainer"),
])
def test_the_walk_lets_pass(module, source):
    assert complaints({"layers.base": "", "cli.options": "", "trainer": "", module: source}) == []
