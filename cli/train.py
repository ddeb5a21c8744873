"""Train MoCo v3 by a named recipe; with --trace, record every layer's gradient at every step."""

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock train`, the same command as `python -m foreshock.trainer`."""
    from ..trainer.command import main as train

    return train(argv)
