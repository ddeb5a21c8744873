"""Serve the live dashboard over a folder of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["DashboardCommand", "main"]


@dataclass(frozen=True)
class DashboardCommand:
    """Serve the live dashboard over a folder of runs, on this machine only unless told otherwise."""

    root: tyro.conf.Positional[Path] = Path("runs")
    """Folder that holds the runs, or one run."""
    port: int = 8050
    """TCP port to listen on."""
    host: str = "127.0.0.1"
    """Address to bind: a loopback address."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock dashboard`; runs until interrupted."""
    command = tyro.cli(DashboardCommand, args=list(argv), prog="foreshock dashboard")
    from ..dashboard.app import serve

    serve(command.root, host=command.host, port=command.port)
    return 0
