"""Where volgate keeps its own files: system paths for root, XDG paths for ordinary users."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CONTROL_SOCKET: Final = "control.sock"
"""Name of the control daemon's socket in the runtime directory, beside those of volumes."""


def state_directory() -> Path:
    """Return the folder of ledgers; survives a restart of the host."""
    if os.geteuid() == 0:
        return Path("/var/lib/volgate")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "volgate"


def cache_directory() -> Path:
    """Return the folder of caches, one for each volume in a bucket; what is not uploaded yet lies there too."""
    if os.geteuid() == 0:
        return Path("/var/cache/volgate")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "volgate"


def catalog_path() -> Path:
    """Return the file that lists the volumes known by name."""
    return state_directory() / "catalog.db"


def config_directory() -> Path:
    """Return the folder of ``volgate.toml`` and ``conf.d``."""
    if os.geteuid() == 0:
        return Path("/etc/volgate")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "volgate"


def runtime_directory() -> Path:
    """Return the folder of sockets and slot files; on tmpfs, gone with the host."""
    if os.geteuid() == 0:
        return Path("/run/volgate")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}") / "volgate"


def socket_path(volume_id: str) -> Path:
    """Return the socket of a volume's owner process."""
    return runtime_directory() / f"{volume_id}.sock"


def control_socket_path() -> Path:
    """Return the socket of the control daemon."""
    return runtime_directory() / CONTROL_SOCKET
