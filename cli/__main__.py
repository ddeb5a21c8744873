"""Finds a subcommand by its name, runs it, and turns what the user can mend into one sentence and exit code 2."""

import ast
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main", "subcommands"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `foreshock SUBCOMMAND …` and return its exit code.

    0: done; 1: the command's own "no" (a failed check); 2: bad input, said in one sentence on standard error;
    130: interrupted. Set `FORESHOCK_DEBUG=1` to see the traceback behind a sentence.

    >>> main(["--version"])
    foreshock 0.1.0
    0
    """
    args = list(sys.argv[1:] if argv is None else argv)
    known = subcommands()
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage(known))
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from importlib.metadata import version

        print("foreshock", version("foreshock"))
        return 0
    name, rest = args[0], args[1:]
    if name not in known:
        return fail(f"there is no subcommand {name!r}; the subcommands are {', '.join(known)}")
    try:
        return importlib.import_module(f"{__package__}.{name.replace('-', '_')}").main(rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `foreshock spikes RUN | head`: not an error, and nobody is left to tell
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - keeps the exit-time flush quiet
        return 0
    except ModuleNotFoundError as error:
        if os.environ.get("FORESHOCK_DEBUG") or (error.name or "").startswith("foreshock"):
            raise
        extra = "pip install 'foreshock[train]'" if error.name in TRAIN_MODULES else f"pip install {error.name}"
        return fail(f"`foreshock {name}` needs the package {error.name}, which is not installed: {extra}")
    except (ValueError, OSError) as error:
        if os.environ.get("FORESHOCK_DEBUG"):
            raise
        return fail(str(error) or type(error).__name__)


TRAIN_MODULES = ("torch", "torchvision", "timm")


def subcommands() -> dict[str, str]:
    """The subcommands and the first sentence of each file's docstring, read without importing any of them."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if not path.stem.startswith("_"):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[path.stem.replace("_", "-")] = docstring.split("\n", 1)[0]
    return found


def usage(known: dict[str, str]) -> str:
    """The text of `foreshock --help`."""
    width = max(map(len, known))
    rows = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in known.items())
    return (
        "foreshock finds the gradient spikes behind accuracy dips in neural-network training.\n\n"
        f"usage: foreshock SUBCOMMAND …    (foreshock SUBCOMMAND --help says more)\n\n{rows}"
    )


def fail(sentence: str) -> int:
    """Print one line on standard error and return exit code 2."""
    print("foreshock:", " ".join(sentence.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
