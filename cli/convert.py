"""Turn another tool's log into a run that foreshock opens, or a run into a file for another tool."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

__all__ = ["ConvertCommand", "main"]


@dataclass(frozen=True)
class ConvertCommand:
    """Turn another tool's log into a run that foreshock opens, or a run into a file for another tool.

    Read: TensorBoard event folders, W&B offline runs (.wandb) and chart exports, trainscope runs, CSV, JSON lines,
    Hugging Face's trainer_state.json, Parquet. Written: CSV, JSON lines, Parquet, netCDF, TensorBoard. The suffix
    tells, or --from and --to. A name without a suffix is a run's folder.
    """

    source: tyro.conf.Positional[str]
    """File or folder to read."""
    target: tyro.conf.Positional[str]
    """Run's folder to make, or file to write."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Format of the source: csv, jsonl, parquet, tensorboard, trainscope, wandb or trace."""
    to: str | None = None
    """Format of the target: csv, jsonl, netcdf, parquet, tensorboard or trace."""
    step_column: str | None = None
    """Column with the step numbers; by default step, _step, global_step, iteration or iter, else rows count."""
    layers: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Columns that are a series' layers, such as grad_norm/LAYER or update_rms=update/LAYER.rms, where LAYER stands for
    the layer's name (give it several times for several series)."""
    rename: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """OLD=NEW: call a scalar or a layer otherwise, such as val/accuracy=knn_accuracy, where the analyses look for the
    accuracy (give it several times for several)."""
    group: bool = False
    """The layers' names are parameters': combine them into layers, ordered from the input to the head."""
    warmup_steps: int | None = None
    """Steps of warm-up, in which spikes are marked as such."""
    overwrite: bool = False
    """Replace what is at the target."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock convert`."""
    command = tyro.cli(ConvertCommand, args=list(argv), prog="foreshock convert")
    from ..traces.convert import Mapping, convert

    pairs = [text.rpartition("=") for text in command.rename]
    wrong = next((text for text, (old, _, new) in zip(command.rename, pairs, strict=True) if not (old and new)), None)
    if wrong is not None:
        raise ValueError(f"--rename {wrong!r} is not OLD=NEW; write such as validation/accuracy=knn_accuracy")
    group = None
    if command.group:
        from ..probes.layers import group_layers as group
    done = convert(
        command.source,
        command.target,
        source_format=command.from_,
        target_format=command.to,
        step_column=command.step_column,
        mapping=Mapping(command.layers, {old: new for old, _, new in pairs}, group),
        warmup_steps=command.warmup_steps,
        overwrite=command.overwrite,
    )
    print(
        f"{command.target} ({done.target_format}): {done.rows:,} steps, {_count(len(done.layers), 'layer')} of "
        f"{', '.join(done.series)}, {_count(len(done.scalars), 'scalar')}"
    )
    if done.repeated:
        print(f"{done.repeated:,} values were logged again for a step that had one; the later ones were kept")
    if done.skipped:
        more = f" and {len(done.skipped) - 10} more" if len(done.skipped) > 10 else ""
        print(f"not numbers, so left out: {', '.join(done.skipped[:10])}{more}")
    return 0


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
