"""A configuration as the plain mapping that traces and checkpoints hold, and read back from it."""

__all__ = ["config_from", "config_to_save"]

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints
from urllib.parse import urlsplit

from .config import TrainConfig

Config = TypeVar("Config")


def config_to_save(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain values. Of a webhook only the host: whoever has the rest can post to it.

    >>> from .config import AlertConfig
    >>> config = TrainConfig(trace="runs/a", alert=AlertConfig(webhook="https://me:secret@example.com/T0/B1"))
    >>> config_to_save(config)["alert"]["webhook"]
    'https://example.com'
    """
    saved = asdict(config)
    if config.alert.webhook is not None:
        url = urlsplit(config.alert.webhook)
        saved["alert"]["webhook"] = f"{url.scheme}://{url.hostname}"
    return saved


def config_from(saved: Mapping[str, Any]) -> TrainConfig:
    """The configuration that `config_to_save` made `saved`; fields that it lacks are at their defaults.

    Raises ValueError for a field that this version doesn't know, and for values that it refuses.

    >>> config_from({"seed": 3, "vit": {"dim": 64}}).network.dim
    64
    """
    return _build(TrainConfig, saved, "")


def _build(kind: type[Config], saved: Mapping[str, Any], path: str) -> Config:
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    unknown = sorted(set(saved) - known)
    if unknown:
        raise ValueError(
            f"the configuration has {path}{unknown[0]}, unknown to this version: use the one that saved it."
        )
    values = {}
    for name, value in saved.items():
        nested = hints[name]
        if is_dataclass(nested) and isinstance(value, Mapping):
            value = _build(nested, value, f"{path}{name}.")  # pyright: ignore[reportArgumentType]
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
