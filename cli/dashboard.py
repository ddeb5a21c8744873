"""Serve the live dashboard over a folder of runs."""

import os
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
    """Address to bind; another than a loopback address lets others on the network in, and needs a token."""
    token: str = ""
    """Secret of at least 16 characters that a browser must bring; FORESHOCK_TOKEN in the environment will do too."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock dashboard`; runs until interrupted."""
    command = tyro.cli(DashboardCommand, args=list(argv), prog="foreshock dashboard")
    from ..dashboard.app import serve

    token = command.token or os.environ.get("FORESHOCK_TOKEN", "")
    serve(command.root, host=command.host, port=command.port, token=token)
    return 0
