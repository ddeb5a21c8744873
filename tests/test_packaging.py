"""The wheel: every subpackage and asset, and nothing at the top that could overwrite another distribution."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel_names(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    work = tmp_path_factory.mktemp("wheel")
    tree = work / "tree"  # a copy: the build leaves build/ and *.egg-info behind
    skip = shutil.ignore_patterns(".git", ".venv", "build", "runs", "checkpoints", "__pycache__", "*.egg-info")
    shutil.copytree(repo_root, tree, ignore=skip)
    command = [
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(work),
        str(tree),
    ]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = work.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_source_file_and_asset(repo_root: Path, wheel_names: set[str]) -> None:
    for folder in ("trainer", "probes", "traces", "dashboard", "cli"):
        for path in (repo_root / folder).rglob("*"):
            if path.is_file() and path.suffix in (".py", ".css", ".js", ".svg") and "__pycache__" not in path.parts:
                assert f"foreshock/{path.relative_to(repo_root).as_posix()}" in wheel_names


def test_the_wheel_adds_one_name_at_the_top(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"foreshock"}
