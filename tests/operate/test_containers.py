"""What a container sees of a mount: by propagation, by bind mount, and when the daemon dies and comes back."""

import contextlib
import os
import signal
import subprocess

import pytest

from mounting import detach, mounted, start, used_of, volgate, wait_until, walk_usage


@contextlib.contextmanager
def container(propagation, script, *arguments):
    """Run a bash script with a mount namespace of its own; yields what asks it a question by one line."""
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", propagation, "bash", "-c", script, "bash", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip

    def ask(command):
        process.stdin.write(f"({command}) 2>&1 | tr '\\n' ' '; echo\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        assert process.stdout.readline() == "ready\n"
        yield ask
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


DEAD = ("Transport endpoint is not connected", "Software caused connection abort")
READ_COMMANDS = 'echo ready; while read -r line; do eval "$line"; done'


@pytest.fixture
def shared(place):
    """Return a directory that passes its mounts on, as a host's /mnt does under systemd."""
    directory = place / "shared"
    directory.mkdir()
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    subprocess.run(["mount", "--make-rshared", directory], check=True)
    yield directory
    detach(directory)


def test_a_container_that_takes_the_parent_by_rslave_sees_a_remount_after_a_crash(shared):
    script = f'mount --rbind "$1" /mnt && mount --make-rslave /mnt; {READ_COMMANDS}'
    with container("slave", script, shared) as ask:
        with mounted(shared) as mount:
            (mount.path / "f").write_text("first")
            assert ask("cat /mnt/volume/f") == "first"
            os.kill(mount.process.pid, signal.SIGKILL)
            mount.process.wait()
            assert ask("cat /mnt/volume/f").endswith(DEAD)
            mount.checked = False
            assert volgate("mount", mount.backing, mount.path, "-d").returncode == 0
            assert ask("cat /mnt/volume/f") == "first"
            assert volgate("umount", mount.path).returncode == 0
        assert "No such file" in ask("cat /mnt/volume/f")


def test_a_bind_mount_of_the_mount_itself_stays_dead_after_a_crash(place):
    with mounted(place) as mount:
        (mount.path / "f").write_text("first")
        script = f'mount --bind "$1" /mnt; {READ_COMMANDS}'
        with container("private", script, mount.path) as ask:
            assert ask("cat /mnt/f") == "first"
            os.kill(mount.process.pid, signal.SIGKILL)
            mount.process.wait()
            mount.checked = False
            assert volgate("mount", mount.backing, mount.path, "-d").returncode == 0
            assert (mount.path / "f").read_text() == "first"
            assert ask("cat /mnt/f").endswith(DEAD)  # such a container must be started anew
            assert volgate("umount", mount.path).returncode == 0


def test_a_volume_on_a_volume_is_limited_by_both(place):
    with mounted(place, "--quota", "1MiB", name="outer") as outer:
        (outer.path / "inner.data").mkdir()
        (outer.path / "inner").mkdir()
        data, path = outer.path / "inner.data", outer.path / "inner"
        inner = start(data, path, "--quota", "10MiB", log_path=place / "inner.log")  # not on the volume that gets full
        try:
            (place / "other").write_text("x")
            assert "ermitted" in volgate("copy", place / "other", inner.path / "copied").stderr
            (inner.path / "f").write_bytes(bytes(500_000))
            with pytest.raises(OSError, match="quota"):
                (inner.path / "g").write_bytes(bytes(900_000))
            wait_until(lambda: inner.statistic("open_files") == 0)
            assert used_of(inner) == walk_usage(inner.backing)
        finally:
            assert inner.stop() == 0
        wait_until(lambda: outer.statistic("open_files") == 0)
        assert used_of(outer) == walk_usage(outer.backing)
        assert used_of(outer)[0] <= 1 << 20
