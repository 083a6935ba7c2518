"""Programs of Go and Rust that the tests stand on: pinned, and built once into .programs.

As a command it builds all of them. `tools/setup testing` does so, since a test has less time than a build takes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_GO = {
    "versitygw": ("github.com/versity/versitygw/cmd/versitygw", "v1.8.0"),
    "toxiproxy": ("github.com/Shopify/toxiproxy/v2/cmd/server", "v2.5.0"),
}
_RUST = {"pjdfstest": "0.2.2", "fsx": "0.3.2"}
_PROGRAMS = Path(__file__).parents[1] / ".programs"
_BUILD_S = 900


def go() -> str:
    """Return the path of the Go compiler."""
    return shutil.which("go") or str(Path(sys.prefix) / "bin" / "go")


def program(name: str) -> str:
    """Return the path of a program; builds it where it is missing (a minute or two)."""
    if name in _GO:
        module, version = _GO[name]
        folder = _PROGRAMS / f"{name}-{version}"
        built = folder / module.rsplit("/", 1)[1]
        command = [go(), "install", f"{module}@{version}"]
        settings = {"GOBIN": str(folder), "CGO_ENABLED": "0"}
    else:
        version = _RUST[name]
        folder = _PROGRAMS / f"{name}-{version}"
        built = folder / "bin" / name
        command = ["cargo", "install", "--quiet", "--locked", "--root", str(folder), f"{name}@{version}"]
        settings = {}
    if not built.exists():
        _build(name, command, settings)
    return str(built)


def _build(name: str, command: Sequence[str], settings: Mapping[str, str]) -> None:
    print(f"building {name} for the tests", file=sys.stderr)
    subprocess.run(command, env={**os.environ, **settings}, check=True, timeout=_BUILD_S)


if __name__ == "__main__":
    for needed in (*_GO, *_RUST):
        program(needed)
