"""The model card of an exported backbone: what it is, how it was trained, what was measured; accuracies in per cent."""

__all__ = ["model_card"]

from collections.abc import Mapping, Sequence
from typing import Any

from .pretrained import Pretrained


def model_card(pretrained: Pretrained, architecture: str, measured: Sequence[Mapping[str, Any]] = ()) -> str:
    """The text of README.md in the Hugging Face hub's layout; the licence is left open, and the text says so.

    Raises ValueError for measurements that are none, or are of another checkpoint.

    >>> from pathlib import Path
    >>> from .vit import vit
    >>> from .config import DataConfig, MethodConfig, VitConfig
    >>> own = Pretrained(vit(VitConfig()), VitConfig(), MethodConfig(), "encoder", Path("x.pt"), 9, DataConfig())
    >>> [line for line in model_card(own, "vit_tiny_patch16_224").splitlines() if "steps" in line]
    ['| optimizer steps | 9 |']
    """
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        "- image-feature-extraction",
    ]
    lines += [
        "- timm",
        f"- {pretrained.method.name}",
        "# license: fill this in before you publish the model",
        "---",
        "",
    ]
    lines += [f"# {architecture}, pre-trained with {pretrained.method.name}", ""]
    network = pretrained.network
    lines += [f"A backbone without a classifier. Its feature: {network.feature}, {network.dim} numbers.", ""]
    lines += [
        "```python",
        "import timm",
        "",
        'model = timm.create_model("local-dir:.", pretrained=True).eval()',
        "```",
        "",
    ]
    lines += ["## Training", "", *_table(_training(pretrained)), ""]
    lines += ["## Measured", "", *_measurements(pretrained, measured), ""]
    lines += [
        "## Licence",
        "",
        "Not chosen yet: whoever publishes this model fills it in here and at the top, with regard to the",
    ]
    lines += ["licence of the images it was trained on.", ""]
    return "\n".join(lines)


def _training(pretrained: Pretrained) -> dict[str, str]:
    mean, std = pretrained.tones
    data = pretrained.data.dataset if pretrained.data else "ImageNet (a published file of the authors)"
    facts = {
        "method": pretrained.method.name,
        "data": data,
        "encoder": pretrained.encoder,
        "image": f"{pretrained.network.in_chans} x {pretrained.network.size[0]} x {pretrained.network.size[1]}",
        "mean, standard deviation": f"{list(mean)}, {list(std)}",
    }
    if pretrained.step is not None:
        facts["optimizer steps"] = str(pretrained.step)
    if pretrained.epoch is not None:
        facts["epochs"] = str(pretrained.epoch)
    config = pretrained.config
    if config is not None:
        facts |= {
            "batch size": str(config.batch_size),
            "optimizer": f"{config.optim.name}, peak lr {config.lr:g}, weight decay {config.optim.weight_decay:g}",
            "patch projection": config.method.patch_projection,
            "seed": str(config.seed),
        }
    return facts


def _table(facts: Mapping[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]


def _measurements(pretrained: Pretrained, measured: Sequence[Mapping[str, Any]]) -> list[str]:
    if not measured:
        return ["Nothing has been measured on it yet."]
    rows = [_measurement(pretrained, found) for found in measured]
    return ["| evaluation | data | accuracy (95 % interval) | settings |", "|---|---|---|---|", *rows]


def _measurement(pretrained: Pretrained, found: Mapping[str, Any]) -> str:
    try:
        name, protocol, headline = found["evaluation"], dict(found["protocol"]), dict(found["headline"])
        accuracy, low, high = (100 * headline.pop(key) for key in ("accuracy", "low", "high"))
        data = f"{protocol['dataset']}, {protocol['test_images']} test images"
        crop = protocol["crop"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"not a measurement ({error} is missing): give what `foreshock evaluate --json` printed."
        ) from error
    for key in ("encoder", "step", "epoch", "method"):
        # The step and the encoder tell the checkpoint, whatever its folder is called.
        theirs, own = protocol.get(key), pretrained.origin.get(key)
        if theirs != own:
            raise ValueError(
                f"a measurement is of another checkpoint ({key} {theirs}, not {own}): "
                "leave it out, or measure this one."
            )
    settings = ", ".join([*(f"{key.replace('_', ' ')} {value}" for key, value in headline.items()), crop])
    return f"| {name} | {data} | {accuracy:.2f} ({low:.2f} to {high:.2f}) | {settings} |"
