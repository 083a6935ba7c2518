"""A pointer of libcephfs never goes to another mount than its own, whatever other threads do: that would be a crash."""

import errno
import threading
from types import SimpleNamespace

import pytest

from volgate.drivers.ceph import libcephfs
from volgate.drivers.ceph.libcephfs import Client
from volgate.drivers.ceph.open_file import CephInode

OLD, NEW = 0x1000, 0x2000


@pytest.fixture
def client(monkeypatch):
    """Return a client whose library notes (mount, inode), and that is mounted as OLD and then as NEW."""
    client, seen = Client({}), []

    def lookup_inode(mount, ino, found):
        found._obj.value = mount + ino
        return 0

    library = SimpleNamespace(
        ceph_ll_getattr=lambda mount, inode, *_: seen.append((mount, inode)) or 0,
        ceph_ll_lookup_inode=lookup_inode,
        ceph_ll_put=lambda mount, inode: seen.append((mount, inode)) or 0,
        ceph_abort_conn=lambda mount: 0,
    )
    monkeypatch.setattr(libcephfs, "library", lambda: library)
    monkeypatch.setattr(Client, "_mount_root", lambda self: setattr(self, "_mount", NEW))
    client._mount, client.seen = OLD, seen
    return client


def elsewhere(call, *arguments):
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    thread.join()


def test_a_thread_goes_on_with_the_mount_its_pointers_are_of(client):
    inode = CephInode(client, OLD + 7, 7)
    assert client.pin() == OLD
    pointer = inode.pointer
    elsewhere(client.mount_anew, OLD)
    client.call("ll_getattr", pointer)
    assert client.seen == [(OLD, OLD + 7)]
    client.unpin()
    client.call("ll_getattr", inode.pointer)
    assert client.seen[-1] == (NEW, NEW + 7)


def test_a_thread_of_before_does_not_take_back_what_another_has_looked_up_anew(client):
    inode = CephInode(client, OLD + 7, 7)
    client.pin()
    elsewhere(client.mount_anew, OLD)
    elsewhere(lambda: inode.pointer)
    with pytest.raises(OSError) as caught:
        inode.pointer  # noqa: B018 - raises
    assert caught.value.errno == errno.ESHUTDOWN
    client.mount_anew(OLD)  # what ``served`` does then; another thread has done it
    assert inode.pointer == NEW + 7
    inode.close()
    assert client.seen == [(NEW, NEW + 7)]


def test_what_belongs_to_a_mount_of_before_is_not_given_back_to_the_present_one(client):
    inode = CephInode(client, OLD + 7, 7)
    elsewhere(client.mount_anew, OLD)
    inode.close()
    assert client.seen == []
