"""Measure how good a checkpoint's features are: kNN, a linear probe, or fine-tuning."""

import json
import sys
from collections.abc import Sequence

__all__ = ["main"]

USAGE = """usage: foreshock evaluate PROTOCOL CHECKPOINT [OPTIONS]

Measure how good the features of a checkpoint are. CHECKPOINT is a file step-*.pt, a folder of them, or a published
MoCo v3 checkpoint. --random measures an untrained network of the same shape instead: the control.

    foreshock evaluate knn checkpoints/demo --k 20 200 --temperature 0.07 0.1
    foreshock evaluate linear checkpoints/demo --json
    foreshock evaluate finetune checkpoints/demo --epochs 10
    foreshock evaluate knn vit-s-300ep.pth.tar --data folder:PATH
    foreshock evaluate knn --help                                  every option of a protocol
"""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock evaluate`; exit code 0, or 2 for what cannot be evaluated."""
    from ..trainer.command import spin_briefly
    from ..trainer.evaluate import load_protocol, protocols

    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, protocols()))
        rows = "\n".join(f"{name:<{width}}  {summary}" for name, summary in protocols().items())
        print(f"{USAGE}\n{rows}", file=sys.stdout if argv else sys.stderr)
        if argv:
            raise SystemExit(0)
        return 2
    name, *rest = argv
    spin_briefly()
    protocol = load_protocol(name)
    import tyro

    settings = tyro.cli(protocol.Settings, args=rest, prog=f"foreshock evaluate {name}")
    measured = protocol.evaluate(settings)
    if settings.json:
        print(json.dumps(measured.as_json(), allow_nan=False))
    else:
        from ._measurements import print_measured

        print_measured(measured)
    return 0
