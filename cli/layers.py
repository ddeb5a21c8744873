"""Show which parameters form a layer, of a timm model, of your own model, or of a run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["LayersCommand", "main"]

MOST_NAMES = 3


@dataclass(frozen=True)
class LayersCommand:
    """Show which parameters form a layer, of a timm model, of your own model, or of a run."""

    model: tyro.conf.Positional[str]
    """A timm model (vit_small_patch16_224), module:function that returns a model, or the folder of a run."""
    pattern: str | None = None
    """A regular expression whose groups are the layer's name, such as 'blocks.(\\d+).(attn|mlp)'."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock layers`."""
    command = tyro.cli(LayersCommand, args=list(argv), prog="foreshock layers")
    if Path(command.model).is_dir() or "://" in command.model:
        return _of_run(command)
    from ..probes.layers import group_layers
    from ..probes.sensors._named_model import parameter_sizes

    sizes = parameter_sizes(command.model)
    groups = group_layers(sizes, pattern=command.pattern)
    if command.json:
        print(json.dumps({"model": command.model, "layers": groups}))
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    left_out = len(sizes) - sum(map(len, groups.values()))
    table = Table(header_style="bold")
    table.add_column("layer")
    table.add_column("tensors", justify="right")
    table.add_column("weights", justify="right")
    table.add_column("parameters")
    for layer, names in groups.items():
        rest = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        told = escape(", ".join(names[:MOST_NAMES])) + rest
        table.add_row(escape(layer), str(len(names)), f"{sum(sizes[name] for name in names):,}", told)
    console = Console()
    console.print(table)
    if left_out:
        console.print(f"[dim]{left_out} of {len(sizes)} parameters match no layer and are left out[/]")
    return 0


def _of_run(command: LayersCommand) -> int:
    """The layers of a trace, and which of them were measured: a trace does not hold the parameters' names."""
    if command.pattern is not None:
        raise ValueError(f"{command.model} is a run, whose layers are fixed: --pattern is for models")
    import numpy as np

    from ..traces import open_trace

    trace = open_trace(command.model)
    measured = {name: np.isfinite(trace[name]).sum(1) for name in trace.series}
    if command.json:
        layers = {layer: {name: int(n[i]) for name, n in measured.items()} for i, layer in enumerate(trace.layers)}
        print(json.dumps({"run": str(command.model), "steps": len(trace), "layers": layers}))
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{len(trace):,} steps; how many of them were measured", title_justify="left")
    table.add_column("layer")
    for name in measured:
        table.add_column(name, justify="right")
    for i, layer in enumerate(trace.layers):
        table.add_row(escape(layer), *(f"{n[i]:,}" for n in measured.values()))
    Console().print(table)
    return 0
