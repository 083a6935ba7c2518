"""Hosts in this machine: network namespaces that reach it and nothing else."""

import contextlib
import os
import subprocess


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, timeout=20)


@contextlib.contextmanager
def two_networks():
    """Return the address of this host, and two network namespaces that reach nothing else."""
    number = os.getpid() % 250
    bridge, names = f"vg{number}", [f"vg{number}-a", f"vg{number}-b"]
    with contextlib.ExitStack() as undo:
        ip("link", "add", bridge, "type", "bridge")
        undo.callback(ip, "link", "del", bridge)
        ip("address", "add", f"10.203.{number}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for last, name in enumerate(names, 2):
            ip("netns", "add", name)
            undo.callback(ip, "netns", "del", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            undo.callback(ip, "link", "del", name)
            ip("link", "set", name, "master", bridge, "up")
            ip("-n", name, "address", "add", f"10.203.{number}.{last}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield f"10.203.{number}.1", names
