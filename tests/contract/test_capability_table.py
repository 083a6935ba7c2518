"""The table in drivers/README.md says what the drivers say when they are open on real storage."""

from pathlib import Path

import capability_table
import pytest
import trio

import ceph_cluster
import mounting
from volgate import drivers
from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.memory import MemoryBackend
from volgate.drivers.registry import Source, load_backend
from volgate.drivers.s3.store import S3ObjectStore
from volgate.testing.backend_contract import CONTEXT

README = Path(drivers.__file__).with_name("README.md")


@pytest.fixture
def cephfs(place):
    with ceph_cluster.running(place) as cluster, ceph_cluster.mounted(cluster, place / "cephfs") as found:
        (found.path / "volume").mkdir()
        yield found.path / "volume", {"conf": str(cluster.configuration), "client": "fs"}


@pytest.fixture
def ext4(place):
    """Return the root of an ext4."""
    with mounting.loop_image(place, "ext4", 64 << 20) as root:
        yield root


def test_the_table_is_what_the_drivers_say(cephfs, ext4, settings, place):
    volume, options = cephfs
    share = {"mount_path": str(ext4), "credentials_file": str(place / "login")}  # without a login it is a directory
    backends = {
        "memory": MemoryBackend,
        "posix on ext4, as root": lambda: load_backend(Source("posix", str(ext4))),
        "CephFS by ceph-fuse": lambda: load_backend(Source("posix", str(volume))),
        "ceph://": lambda: load_backend(Source("ceph", "ceph:///volume", options)),
        "hammerspace://, here on ext4": lambda: load_backend(Source("hammerspace", "hammerspace://anvil/share", share)),
        "s3": lambda: CachedBackend(S3ObjectStore(settings), CacheSettings(place / "cache", min_free_bytes=0)),
    }
    found = {}

    async def look(name, make):
        backend = make()
        if not name.startswith("hammerspace"):  # which would ask its Anvil
            await backend.create_volume(CONTEXT)
        root = await backend.open_volume(CONTEXT)
        found[name] = backend.capabilities
        root.close()
        await backend.close()

    for name, make in backends.items():
        trio.run(look, name, make)
    table = capability_table.render(found)
    assert table in README.read_text(), f"put this into {README}:\n{table}"
