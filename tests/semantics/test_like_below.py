"""The same steps on the mount and on the file system below it: the same results."""

import errno
import fcntl
import mmap
import os
import shutil
import socket
import subprocess
import threading

import pytest

from mounting import in_child, spawn

NOBODY, GAMES = 65534, 5


def outcome(call, *args, **options):
    """Return what a call returns, or the name of its errno."""
    try:
        return call(*args, **options)
    except OSError as error:
        return errno.errorcode[error.errno]


def mode(path):
    return oct(os.lstat(path).st_mode)


def owner_and_mode(path):
    found = os.lstat(path)
    return found.st_uid, found.st_gid, oct(found.st_mode)


def names_of_any_bytes(d):
    names = [b"\xff\xfe", b"new\nline", b"a" * 255, " ä".encode(), b"-"]
    for name in names:
        os.close(os.open(os.path.join(os.fsencode(d), name), os.O_CREAT))
    too_long = outcome(os.open, os.path.join(os.fsencode(d), b"a" * 256), os.O_CREAT)
    return sorted(os.listdir(os.fsencode(d))), too_long


def links(d):
    (d / "f").write_text("x")
    os.link(d / "f", d / "g")
    os.symlink("f", d / "s")
    os.link(d / "s", d / "s2", follow_symlinks=False)
    os.unlink(d / "f")
    return (d / "g").read_text(), os.stat(d / "g").st_nlink, os.readlink(d / "s2"), outcome(os.stat, d / "s")


def special_files(d):
    os.mkfifo(d / "p", 0o640)
    got = []
    reader = threading.Thread(target=lambda: got.append((d / "p").read_bytes()))
    reader.start()
    (d / "p").write_bytes(b"through the fifo")
    reader.join(10)
    here = os.open(d, os.O_RDONLY)
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    with server, client:
        server.bind(f"/proc/self/fd/{here}/k")
        server.listen()
        client.connect(f"/proc/self/fd/{here}/k")
    os.close(here)
    return got, mode(d / "p"), mode(d / "k")


def xattrs(d):
    (d / "f").touch()
    set_, get = os.setxattr, os.getxattr
    set_(d / "f", "user.a", b"\0x")
    return (
        get(d / "f", "user.a"),
        outcome(set_, d / "f", "user.a", b"", os.XATTR_CREATE),
        outcome(set_, d / "f", "user.b", b"", os.XATTR_REPLACE),
        outcome(get, d / "f", "user.b"),
        os.listxattr(d / "f"),
        outcome(os.removexattr, d / "f", "user.a"),
        os.listxattr(d / "f"),
    )


def acls(d):
    (d / "dir").mkdir(mode=0o770)
    subprocess.run(["setfacl", "-m", "u:games:rwx,d:u:games:rwx,d:o::---", str(d / "dir")], check=True)
    old = os.umask(0o077)
    (d / "dir" / "f").touch()
    (d / "dir" / "sub").mkdir()
    os.umask(old)
    listed = subprocess.run(["getfacl", "-Rp", "."], cwd=d / "dir", capture_output=True, text=True, check=True).stdout
    return (
        listed,
        in_child(outcome, os.listdir, d / "dir", uid=GAMES),
        in_child(outcome, os.listdir, d / "dir", uid=NOBODY),
        mode(d / "dir" / "f"),
    )


def sticky_and_setgid(d):
    (d / "t").mkdir()
    os.chmod(d / "t", 0o1777)
    in_child((d / "t" / "f").touch, uid=GAMES)
    (d / "s").mkdir()
    os.chown(d / "s", 0, 60)
    os.chmod(d / "s", 0o2777)
    in_child((d / "s" / "f").touch, uid=GAMES)
    in_child((d / "s" / "d").mkdir, uid=GAMES)
    return (
        in_child(outcome, os.unlink, d / "t" / "f", uid=NOBODY),
        owner_and_mode(d / "t" / "f"),
        owner_and_mode(d / "s" / "f"),
        owner_and_mode(d / "s" / "d"),
    )


def times(d):
    (d / "f").touch()
    os.utime(d / "f", ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    os.symlink("f", d / "s")
    os.utime(d / "s", ns=(5, 7), follow_symlinks=False)
    found, link = os.stat(d / "f"), os.lstat(d / "s")
    return found.st_atime_ns, found.st_mtime_ns, link.st_mtime_ns


def unlinked_and_renamed_over_while_open(d):
    results = []
    for gone in ("unlink", "rename"):
        with open(d / "f", "w+b") as file:
            file.write(b"before")
            file.flush()
            if gone == "unlink":
                os.unlink(d / "f")
            else:
                (d / "other").write_text("other")
                os.rename(d / "other", d / "f")
            fd = file.fileno()
            os.pwrite(fd, b"after", 6)
            os.ftruncate(fd, 8)
            os.fchmod(fd, 0o600)
            os.utime(fd, ns=(1, 2))
            os.setxattr(fd, "user.x", b"1")
            found = os.fstat(fd)
            again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
            results += [os.pread(fd, 100, 0), found.st_nlink, found.st_size, oct(found.st_mode), found.st_mtime_ns]
            results += [os.getxattr(fd, "user.x"), os.read(again, 100)]
            os.close(again)
    return results


def sparse(d):
    with open(d / "f", "wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    with open(d / "f", "rb") as file:
        file.seek((1 << 29) - 3)
        return os.stat(d / "f").st_size, file.read(12), os.stat(d / "f").st_blocks < 1000


def rename_flags(d):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def renameat2(old, new, flags):
        if libc.renameat2(-100, os.fsencode(d / old), -100, os.fsencode(d / new), flags):
            return errno.errorcode[ctypes.get_errno()]
        return 0

    (d / "a").write_text("A")
    (d / "b").mkdir()
    (d / "b" / "in").write_text("in")
    results = [renameat2("a", "b", 1), renameat2("a", "c", 1), renameat2("c", "b", 2)]
    return results, (d / "b").read_text(), (d / "c" / "in").read_text(), renameat2("missing", "b", 2)


def append_from_two_processes(d):
    def append(letter):
        fd = os.open(d / "f", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for _ in range(300):
            os.write(fd, letter * 100)

    for child in [spawn(append, letter) for letter in (b"a", b"b")]:
        child.result()
    content = (d / "f").read_bytes()
    return len(content), content.count(b"a"), all(content[n : n + 100].count(content[n : n + 1]) == 100
                                                  for n in range(0, len(content), 100))  # fmt: skip


def direct_and_mapped(d):
    page = mmap.mmap(-1, 4096)
    page[:] = b"d" * 4096
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    os.write(fd, page)
    os.close(fd)
    with open(d / "f", "r+b") as file, mmap.mmap(file.fileno(), 4096) as mapping:
        mapping[10:16] = b"mapped"
        mapping.flush()
        direct = os.open(d / "f", os.O_RDONLY | os.O_DIRECT)
        os.preadv(direct, [page], 0)
        os.close(direct)
    return page[:20]


def locks_between_processes(d):
    results = []
    for lock in (fcntl.flock, fcntl.lockf):
        with open(d / "f", "w") as file:
            lock(file, fcntl.LOCK_EX)

            def attempt(lock=lock):
                with open(d / "f", "r+") as other:
                    return outcome(lock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)

            results.append(in_child(attempt))
            lock(file, fcntl.LOCK_UN)
            results.append(in_child(attempt))
    return results


def privileges_cleared(d):
    def write(path):
        with open(path, "r+b") as file:
            file.write(b"x")

    results = []
    for bits in (0o4777, 0o2777, 0o6777, 0o2767):
        for change in (
            lambda f: in_child(write, f, uid=NOBODY),
            lambda f: in_child(os.truncate, f, 1, uid=NOBODY),
            lambda f: write(f),
            lambda f: os.truncate(f, 1),
            lambda f: os.chown(f, 7, 7),
            lambda f: os.chmod(f, 0o4755),
        ):
            (d / "f").write_bytes(b"content")
            os.chmod(d / "f", bits)
            change(d / "f")
            results.append(mode(d / "f"))
            os.unlink(d / "f")
    return results


def ownership_and_umask(d):
    def make():
        os.umask(0o027)
        (d / "w" / "f").touch()
        (d / "w" / "d").mkdir()
        os.symlink("x", d / "w" / "s")
        os.mkfifo(d / "w" / "p")

    (d / "w").mkdir()
    os.chmod(d / "w", 0o777)
    in_child(make, uid=NOBODY, gids=[60])
    return [owner_and_mode(d / "w" / name) for name in "fdsp"]


def writing_to_a_running_program(d):
    """Of three ways to open it for a change, truncation is the one that the kernel refuses too late for us."""
    program = d / "sleep"
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([program, "60"])
    tried = [outcome(os.open, program, flags) for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC)]
    tried += [outcome(os.truncate, program, 0), program.stat().st_size == os.stat(shutil.which("sleep")).st_size]
    process.kill()
    process.wait()
    (d / "sleep").write_bytes(b"it may be changed when it has ended")
    return tried, process.returncode, program.read_bytes()


STEPS = [
    names_of_any_bytes, links, special_files, xattrs, acls, sticky_and_setgid, times, sparse, rename_flags,
    unlinked_and_renamed_over_while_open, append_from_two_processes, direct_and_mapped, locks_between_processes,
    privileges_cleared, ownership_and_umask, writing_to_a_running_program,
]  # fmt: skip


@pytest.mark.parametrize("steps", STEPS, ids=lambda steps: steps.__name__)
def test_the_mount_does_what_the_file_system_below_does(shared_volume, module_place, steps):
    results = []
    for base in (module_place / "below", shared_volume.path):
        directory = base / steps.__name__
        directory.mkdir(parents=True)
        os.chmod(base, 0o755)
        os.chmod(directory, 0o777)
        results.append(steps(directory))
    assert results[1] == results[0]
