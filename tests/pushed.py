"""A message of the dashboard's server as the browser reads it."""

from typing import Any


def unfolded(push: dict[str, Any]) -> dict[str, Any]:
    """Its figures with every `{"list": i}` replaced, the slow way of assets/draw.js."""

    def put(value: Any) -> Any:
        return push["lists"][value["list"]] if isinstance(value, dict) and "list" in value else value

    def trace(held: dict[str, Any] | None) -> dict[str, Any] | None:
        return held and {name: put(value) if name in ("x", "y") else value for name, value in held.items()}

    return {name: {**part, "data": [trace(one) for one in part["data"]]} for name, part in push["figures"].items()}
