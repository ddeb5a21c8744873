"""Write a checkpoint's backbone as a plain timm model, or as a folder for the Hugging Face hub."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

__all__ = ["ExportCommand", "main"]


@dataclass(frozen=True)
class ExportCommand:
    """Write a checkpoint's backbone as a plain timm model, or as a folder for the Hugging Face hub."""

    checkpoint: tyro.conf.Positional[Path]
    """A file step-*.pt, a folder of them (the newest is taken), or a published MoCo v3 checkpoint."""
    out: tyro.conf.Positional[Path]
    """The safetensors file to write; with --hf, the folder."""
    hf: bool = False
    """Write a folder with config.json, model.safetensors and a model card. Its licence is left for you to fill in."""
    measured: tuple[Path, ...] = ()
    """With --hf: files with what `foreshock evaluate --json` printed on this checkpoint, for the model card."""
    encoder: Literal["encoder", "momentum_encoder"] = "encoder"
    """Which of the two encoders of a momentum method."""
    image_size: int | None = None
    """Side of the images; the training crops' by default. The position table is fitted to it."""
    arch: str | None = None
    """Published files only: vit-s, vit-b, vit-l, vit-h or resnet50, if shapes shall not decide."""
    heads: int | None = None
    """Published files only: attention heads of a ViT whose width is none of the paper's."""
    overwrite: bool = False
    """Replace what is there."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock export`; exit code 0, or 2 for what cannot be exported."""
    command = tyro.cli(ExportCommand, args=list(argv), prog="foreshock export")
    if command.measured and not command.hf:
        raise ValueError("--measured is for the model card that --hf writes: give both, or neither.")
    measured = [read_json(path) for path in command.measured]
    from ..trainer.export import save_folder, save_weights
    from ..trainer.pretrained import load_pretrained, resized

    model = load_pretrained(command.checkpoint, command.encoder, arch=command.arch, heads=command.heads)
    if command.image_size is not None:
        model = resized(model, command.image_size)
    for note in model.notes:
        print(note)
    if command.hf:
        save_folder(model, command.out, measured, overwrite=command.overwrite)
        print(f"wrote {command.out}: config.json, model.safetensors, README.md; fill in the licence in README.md")
        print(f'load it: timm.create_model("local-dir:{command.out}", pretrained=True)')
    else:
        exported = save_weights(model, command.out, overwrite=command.overwrite)
        print(f"wrote {command.out}")
        print(f"load it: {exported.call(str(command.out))}")
    return 0


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError names one that holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): give what `foreshock evaluate --json` printed") from error
    if not isinstance(found, dict) or "evaluation" not in found:
        raise ValueError(f"{path} is not a measurement: give what `foreshock evaluate --json` printed")
    return found
