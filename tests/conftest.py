"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No time limit an example: a machine that is busy with something else is no bug.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Read when gcsfs is first imported, whichever test does that: by gRPC it would wait for ever for an emulator without.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The fixtures that are kept beside the repository; tests that need them skip where they are absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "design.md").exists():
        pytest.skip("the folder ../shared is not here")
    return folder
