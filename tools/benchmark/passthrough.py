"""The least pyfuse3 file system over a directory: what a daemon in Python costs without volgate.

Usage: passthrough.py SOURCE MOUNTPOINT [--noop | --wake-up]
    --noop: getattr answers a constant, with volgate's poll-first wake-up but pyfuse3's own lock
    --wake-up: with volgate's whole way of reading requests; what no handler in Python can fall below
"""

import errno
import os
import sys

import pyfuse3
import trio

TIMEOUT_S = 60


class Passthrough(pyfuse3.Operations):
    def __init__(self, source):
        super().__init__()
        self.paths = {1: source}

    def entry(self, path, status=None):
        status = status or os.lstat(path)
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = status.st_ino
        entry.st_mode = status.st_mode
        entry.st_nlink = status.st_nlink
        entry.st_uid = status.st_uid
        entry.st_gid = status.st_gid
        entry.st_rdev = status.st_rdev
        entry.st_size = status.st_size
        entry.st_blocks = status.st_blocks
        entry.st_atime_ns = status.st_atime_ns
        entry.st_mtime_ns = status.st_mtime_ns
        entry.st_ctime_ns = status.st_ctime_ns
        entry.entry_timeout = entry.attr_timeout = TIMEOUT_S
        self.paths[status.st_ino] = path
        return entry

    def path(self, inode, name=None):
        path = self.paths[inode]
        return path if name is None else f"{path}/{os.fsdecode(name)}"

    async def lookup(self, parent, name, ctx=None):
        try:
            return self.entry(self.path(parent, name))
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None

    async def getattr(self, inode, ctx=None):
        entry = self.entry(self.path(inode))
        entry.st_ino = inode
        return entry

    async def setattr(self, inode, attr, fields, fh, ctx):
        if fields.update_size:
            os.truncate(self.path(inode), attr.st_size)
        if fields.update_mode:
            os.chmod(self.path(inode), attr.st_mode & 0o7777)
        return self.entry(self.path(inode))

    async def opendir(self, inode, ctx):
        return inode

    async def readdir(self, inode, start, token):
        names = sorted(os.listdir(self.path(inode)))
        for number in range(start, len(names)):
            path = f"{self.path(inode)}/{names[number]}"
            if not pyfuse3.readdir_reply(token, os.fsencode(names[number]), self.entry(path), number + 1):
                return

    async def mkdir(self, parent, name, mode, ctx):
        os.mkdir(self.path(parent, name), mode)
        return self.entry(self.path(parent, name))

    async def symlink(self, parent, name, target, ctx):
        os.symlink(target, self.path(parent, name))
        return self.entry(self.path(parent, name))

    async def create(self, parent, name, mode, flags, ctx):
        path = self.path(parent, name)
        fd = os.open(path, os.O_CREAT | os.O_RDWR, mode)
        return pyfuse3.FileInfo(fh=fd), self.entry(path, os.fstat(fd))

    async def open(self, inode, flags, ctx):
        fd = os.open(self.path(inode), flags & (os.O_ACCMODE | os.O_TRUNC))
        return pyfuse3.FileInfo(fh=fd, keep_cache=True)

    async def read(self, fh, offset, size):
        return os.pread(fh, size, offset)

    async def write(self, fh, offset, data):
        return os.pwrite(fh, data, offset)

    async def flush(self, fh):
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def release(self, fh):
        os.close(fh)

    async def rename(self, old_parent, old, new_parent, new, flags, ctx):
        os.rename(self.path(old_parent, old), self.path(new_parent, new))
        self.entry(self.path(new_parent, new))  # its path is another one now

    async def unlink(self, parent, name, ctx):
        os.unlink(self.path(parent, name))

    async def rmdir(self, parent, name, ctx):
        os.rmdir(self.path(parent, name))

    async def getxattr(self, inode, name, ctx):
        raise pyfuse3.FUSEError(errno.ENODATA)

    async def statfs(self, ctx):
        return pyfuse3.StatvfsData()


def answering_errno(method):
    async def handler(*args):
        try:
            return await method(*args)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None

    return handler


for name in ("create", "open", "mkdir", "symlink", "rename", "unlink", "rmdir", "setattr", "getattr", "write", "read"):
    setattr(Passthrough, name, answering_errno(getattr(Passthrough, name)))


class Noop(pyfuse3.Operations):
    def __init__(self):
        super().__init__()
        status = os.stat("/")
        self.answer = pyfuse3.EntryAttributes()
        self.answer.st_ino, self.answer.st_mode = 1, status.st_mode
        self.answer.attr_timeout = self.answer.entry_timeout = 0

    async def getattr(self, inode, ctx=None):
        return self.answer


def main(source, mount_point, *options):
    if options:
        from volgate.fuse import channel, mounting

        device = mounting.mount(mount_point, source="passthrough", read_only=False, allow_other=True)
        kernel = channel.KernelChannel(device)
        if options == ("--noop",):
            pyfuse3.init(Noop(), f"/dev/fd/{kernel.fd}", set())
            channel.install(pyfuse3, kernel)
        else:
            channel.install(pyfuse3, kernel)
            pyfuse3.init(Passthrough(source), f"/dev/fd/{kernel.fd}", set())
        kernel.begin()
    else:
        pyfuse3.init(Passthrough(source), mount_point, {"default_permissions", "allow_other", "fsname=passthrough"})
    trio.run(pyfuse3.main)
    pyfuse3.close(unmount=False)


main(*sys.argv[1:])
