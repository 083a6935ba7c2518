"""Trees to be copied: made at random, changed at random, and described so that two can be compared."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

KINDS = ("file", "file", "file", "file", "folder", "folder", "link", "hard", "fifo", "sparse")


class Garden:
    """A directory that grows and changes. Attributes: path; plain: without what a bucket cannot keep."""

    def __init__(self, path: Path, seed: int, *, plain: bool = False) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.plain = plain
        self._number = 0
        path.mkdir(parents=True, exist_ok=True)

    def _all(self, kind) -> list[str]:
        found = [str(self.path)] if kind is stat.S_ISDIR else []
        for above, folders, files in os.walk(self.path):
            found += [p for name in folders + files if kind(os.lstat(p := os.path.join(above, name)).st_mode)]
        return sorted(found)

    def grow(self, count: int) -> None:
        """Make so many things."""
        folders = self._all(stat.S_ISDIR)
        files = self._all(stat.S_ISREG)
        for _ in range(count):
            self._number += 1
            name = self.chance.choice([f"n{self._number}", f"a name, {self._number}", f"ü{self._number}"])
            path = os.path.join(self.chance.choice(folders), name)
            kind = self.chance.choice(KINDS)
            if kind == "hard" and (self.plain or not files):
                kind = "file"
            if kind == "folder":
                os.mkdir(path)
                folders.append(path)
            elif kind == "link":
                os.symlink(self.chance.choice(["nowhere", "..", "../n1"]), path)
                continue
            elif kind == "hard":
                os.link(self.chance.choice(files), path)
                continue
            elif kind == "fifo":
                os.mkfifo(path)
            else:
                self.write(path, sparse=kind == "sparse")
                files.append(path)
            self.adjust(path)

    def write(self, path: str, *, sparse: bool = False) -> None:
        with open(path, "wb") as file:
            if sparse:
                file.seek(self.chance.randrange(1 << 20))
            file.write(self.chance.randbytes(self.chance.choice([0, 1, 100, 5000, 70_000, 300_000])))
            if sparse:
                file.truncate(file.tell() + self.chance.randrange(1 << 20))

    def adjust(self, path: str) -> None:
        if self.chance.random() < 0.3:
            os.chmod(path, self.chance.choice([0o600, 0o755, 0o4711]))
        if self.chance.random() < 0.3:
            os.chown(path, self.chance.randrange(3), self.chance.randrange(3))
        if self.chance.random() < 0.2 and not stat.S_ISFIFO(os.lstat(path).st_mode):
            os.setxattr(path, "user.kind", self.chance.randbytes(10))
        if self.chance.random() < 0.3:
            os.utime(path, ns=(10**18, 10**18 + self.chance.randrange(10**9)))

    def change(self, count: int) -> None:
        """Change so many things at random: content, attributes, names, and what stands there at all."""
        for _ in range(count):
            files = self._all(stat.S_ISREG)
            anything = self._all(lambda mode: not stat.S_ISDIR(mode))
            do = self.chance.choice(["write", "adjust", "unlink", "rename", "grow", "type", "relink"])
            if do == "write" and files:
                self.write(self.chance.choice(files))
            elif do == "adjust" and files:
                self.adjust(self.chance.choice(files))
            elif do == "unlink" and anything:
                os.unlink(self.chance.choice(anything))
            elif do == "rename" and anything:
                self._number += 1
                folder = self.chance.choice(self._all(stat.S_ISDIR))
                os.rename(self.chance.choice(anything), os.path.join(folder, f"r{self._number}"))
            elif do == "type" and anything:
                path = self.chance.choice(anything)
                os.unlink(path)
                os.mkdir(path)
                self.write(os.path.join(path, "below"))
            elif do == "relink" and files and not self.plain:
                path = self.chance.choice(files)
                content, status = Path(path).read_bytes(), os.stat(path)
                os.unlink(path)  # a name of several gets an inode of its own, which looks the same
                Path(path).write_bytes(content)
                os.chmod(path, stat.S_IMODE(status.st_mode))
                os.chown(path, status.st_uid, status.st_gid)
                os.chmod(path, stat.S_IMODE(status.st_mode))
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            else:
                self.grow(1)


def describe(path: Path, *, links: bool = True, folder_times: bool = True) -> dict[str, tuple]:
    """Return all that a tree shows: names of one inode are told by the first of them."""
    found, names = {}, {}
    for above, folders, files in os.walk(path):
        for name in sorted(folders + files):
            here = os.path.join(above, name)
            status = os.lstat(here)
            content = None
            if stat.S_ISREG(status.st_mode):
                content = Path(here).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(here)
            relative = os.path.relpath(here, path)
            same = None
            if not stat.S_ISDIR(status.st_mode) and links:
                same = names.setdefault(status.st_ino, [])
                same.append(relative)
            is_timed = folder_times or not stat.S_ISDIR(status.st_mode)
            keys = os.listxattr(here, follow_symlinks=False)
            found[relative] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns if is_timed else None,
                {key: os.getxattr(here, key, follow_symlinks=False) for key in keys}, content, same,
            )  # fmt: skip
    return {key: (*found[key][:-1], min(found[key][-1] or [""])) for key in sorted(found)}
