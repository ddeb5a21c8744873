"""The house keeps its shape: what may import what, what stays free of torch, and what setup.cfg ships."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = ("trainer", "probes", "traces", "dashboard", "cli")
TORCH = {"torch", "torchvision", "timm"}
# The arrows of the picture in README.md; everything else is forbidden.
ALLOWED = {
    "traces": set(),
    "probes": {"traces"},
    "trainer": {"probes", "traces"},
    "dashboard": {"probes", "traces"},
    "cli": {"trainer", "probes", "traces", "dashboard"},
}
TORCH_IN_PROBES = ("sensors/", "interventions/", "watch.py", "recorder.py")


def python_files(root: Path, folder: str) -> list[Path]:
    return sorted(p for p in (root / folder).rglob("*.py") if "__pycache__" not in p.parts)


def imports_of(root: Path, path: Path) -> set[str]:
    """Dotted names that a file imports, relative ones resolved to `foreshock.…`."""
    module_path = ("foreshock", *path.relative_to(root).with_suffix("").parts)  # a package's ends in __init__
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = ".".join(module_path[: len(module_path) - node.level]) if node.level else ""
            module = ".".join(part for part in (prefix, node.module or "") if part)
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_follow_the_arrows(repo_root: Path, folder: str) -> None:
    for path in python_files(repo_root, folder):
        for name in imports_of(repo_root, path):
            if name.startswith("foreshock."):
                target = name.split(".")[1]
                assert target == folder or target in ALLOWED[folder], f"{path} must not import {name}"


def test_the_import_reader_resolves_relative_names(repo_root: Path) -> None:
    assert "foreshock.traces" in imports_of(repo_root, repo_root / "cli" / "report.py")
    assert "foreshock.dashboard.app.serve" in imports_of(repo_root, repo_root / "cli" / "dashboard.py")


def test_the_dashboard_uses_no_sensors(repo_root: Path) -> None:
    for path in python_files(repo_root, "dashboard"):
        for name in imports_of(repo_root, path):
            assert not name.startswith(("foreshock.probes.sensors", "foreshock.probes.watch")), path
            assert not name.startswith("foreshock.probes.interventions"), path
            assert not name.startswith("foreshock.probes.recorder"), path


@pytest.mark.parametrize("folder", ["traces", "dashboard", "probes", "cli"])
def test_torch_is_named_only_where_it_belongs(repo_root: Path, folder: str) -> None:
    for path in python_files(repo_root, folder):
        inside = path.relative_to(repo_root / folder).as_posix()
        if folder == "probes" and inside.startswith(TORCH_IN_PROBES):
            continue
        names = {name.split(".")[0] for name in imports_of(repo_root, path)}
        assert not names & TORCH, f"{path} imports {names & TORCH}"


def test_the_light_half_runs_without_torch() -> None:
    code = (
        "import sys; import foreshock.traces, foreshock.probes, foreshock.probes.detectors, foreshock.cli.__main__;"
        "import foreshock.dashboard.app, foreshock.dashboard.report;"
        "from foreshock.probes import find_spikes, find_dips, preceding;"
        "bad = {'torch', 'torchvision', 'timm'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def test_inner_imports_are_relative(repo_root: Path) -> None:
    for folder in FOLDERS:
        for path in python_files(repo_root, folder):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and not node.level:
                    assert not (node.module or "").startswith("foreshock"), f"{path}: use a relative import"


def test_setup_cfg_ships_every_folder(repo_root: Path) -> None:
    config = configparser.ConfigParser()
    config.read(repo_root / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    present = {
        "foreshock." + ".".join(init.parent.relative_to(repo_root).parts)
        for folder in FOLDERS
        for init in (repo_root / folder).rglob("__init__.py")
    }
    assert listed == present
    pairs = [line.split("=") for line in config["options"]["package_dir"].strip().splitlines()]
    mapped = {key.strip(): value.strip() for key, value in pairs}
    assert mapped == {f"foreshock.{folder}": folder for folder in FOLDERS}


def test_every_file_with_code_belongs_to_a_package(repo_root: Path) -> None:
    for folder in FOLDERS:
        for path in python_files(repo_root, folder):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py: the wheel leaves it out"
