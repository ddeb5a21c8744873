"""The checks that the configurations share: each names the field, the value given and what is allowed."""

__all__ = ["choice", "fraction", "not_negative", "positive", "without_effect"]

from dataclasses import fields
from typing import get_args


def positive(config: object, *names: str) -> None:
    """Every number in these fields is greater than 0 (None is passed over), or ValueError."""
    for name in names:
        if not all(number > 0 for number in _numbers(config, name)):
            raise ValueError(f"{name} {getattr(config, name)} must be greater than 0.")


def not_negative(config: object, *names: str) -> None:
    """Every number in these fields is 0 or more (None is passed over), or ValueError."""
    for name in names:
        if not all(number >= 0 for number in _numbers(config, name)):
            raise ValueError(f"{name} {getattr(config, name)} must not be negative.")


def fraction(config: object, *names: str) -> None:
    """Every number in these fields is from 0 to 1, or ValueError."""
    for name in names:
        if not all(0 <= number <= 1 for number in _numbers(config, name)):
            raise ValueError(f"{name} {getattr(config, name)} must be between 0 and 1.")


def choice(config: object, name: str, allowed: object) -> None:
    """The field holds one of the values of the Literal type `allowed`, or ValueError."""
    if getattr(config, name) not in get_args(allowed):
        raise ValueError(f"{name} {getattr(config, name)!r} must be one of {', '.join(get_args(allowed))}.")


def without_effect(config: object, why: str, *names: str) -> None:
    """Fields that nothing would read are at their defaults, or ValueError: an option is never ignored."""
    defaults = {f.name: f.default for f in fields(config)}  # pyright: ignore[reportArgumentType]
    for name in names:
        if getattr(config, name) != defaults[name]:
            raise ValueError(
                f"{name} {getattr(config, name)} would have no effect {why}: leave it at {defaults[name]}."
            )


def _numbers(config: object, name: str) -> tuple[float, ...]:
    value = getattr(config, name)
    return () if value is None else value if isinstance(value, tuple) else (value,)
