"""How good the features of a checkpoint are, one protocol a file.

The folder is the registry: a file here named `x.py` is the protocol "x" of `foreshock evaluate x CHECKPOINT`. Its
docstring's first sentence is its help; it defines `Settings`, a frozen dataclass after `Source`, and
`evaluate(settings) -> Measured`. Files whose names begin with an underscore hold what the protocols share.
Accuracies are shares from 0 to 1 of the test images, top-1, and each goes with the protocol that it was measured by.
"""

__all__ = ["load_protocol", "protocols"]

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType


def protocols() -> dict[str, str]:
    """The protocols and what each is for, read without importing any of them.

    >>> protocols()["knn"]
    'Weighted kNN: the nearest training images vote for the class of each test image, for several k and T in one pass.'
    """
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = docstring.split("\n", 1)[0]
    return found


def load_protocol(name: str) -> ModuleType:
    """The module of the protocol `name`; ValueError lists the known ones."""
    if name not in protocols():
        raise ValueError(f"there is no protocol {name!r}: choose one of {', '.join(protocols())}.")
    return import_module(f"{__name__}.{name}")
