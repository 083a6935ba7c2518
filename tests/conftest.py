"""Fixtures of all kinds of tests that mount."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mounting


@pytest.fixture
def place() -> Iterator[Path]:
    """Return an empty directory that every user may enter; pytest's own are closed to other users."""
    path = Path(tempfile.mkdtemp(prefix="volgate-test-", dir="/var/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        mounting.detach_below(path)
        shutil.rmtree(path, onerror=_ignore_names_too_long)


def _ignore_names_too_long(function: object, path: str, info: object) -> None:
    if os.path.lexists(path):
        raise OSError(f"a test left {path}, which cannot be removed: {info}")


@pytest.fixture
def folders(place: Path) -> tuple[Path, Path]:
    """Return an empty directory to mount, and one to mount it on."""
    data, mnt = place / "data", place / "mnt"
    data.mkdir()
    mnt.mkdir()
    return data, mnt


@pytest.fixture(scope="module")
def module_place() -> Iterator[Path]:
    """Return an empty directory for a whole module."""
    path = Path(tempfile.mkdtemp(prefix="volgate-test-", dir="/var/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        mounting.detach_below(path)
        shutil.rmtree(path, onerror=_ignore_names_too_long)


@pytest.fixture
def volume(place: Path) -> Iterator[mounting.Mount]:
    """Return a fresh volume without limits, mounted."""
    with mounting.mounted(place) as mount:
        yield mount


@pytest.fixture(scope="module")
def shared_volume(module_place: Path) -> Iterator[mounting.Mount]:
    """Return a volume without limits that the tests of a module share, each in its own directory."""
    with mounting.mounted(module_place) as mount:
        yield mount
