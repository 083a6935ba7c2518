"""Copies between real volumes of every kind, with kill -9 on the way: the trees are identical in the end."""

import contextlib
import json
import os
import random
import time
from pathlib import Path

import attrs
import pytest
from trees import Garden, describe

import ceph_cluster
import mounting
import s3_server
import shares
from mounting import used_of, volgate
from volgate.drivers.hammerspace.anvil import MARK

FILES = int(os.environ.get("VOLGATE_COPY_FILES", "400"))
KILLS = int(os.environ.get("VOLGATE_COPY_KILLS", "3"))
LIMIT_S = 100 + FILES // 20 + 5 * KILLS
KINDS = ["posix", "s3", "ceph", "share"]
PAIRS = [(source, target) for source in KINDS for target in KINDS]


@attrs.define
class Storage:
    """A volume that is mounted now and then. Attributes: source, options: what to mount. path: where."""

    source: Path | str
    options: list[str]
    path: Path

    def start(self) -> mounting.Mount:
        return mounting.start(self.source, self.path, *self.options)


@pytest.fixture(scope="module")
def storages(module_place):
    """Return two volumes of each kind: what is copied from, and what is copied into."""
    place, found = module_place, {}
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        server = stack.enter_context(s3_server.running(place / "s3"))
        for name, value in server.environment.items():
            patch.setenv(name, value)
        cluster = stack.enter_context(ceph_cluster.running(place))
        fuse = stack.enter_context(ceph_cluster.mounted(cluster, place / "cephfs"))
        for role in ("from", "into"):
            folder = place / role
            folder.mkdir()
            for kind in KINDS:
                (folder / kind).mkdir()
            (folder / "data").mkdir()
            server.make_bucket(role)
            (fuse.path / role).mkdir()
            (folder / "anvil").mkdir()
            share = stack.enter_context(shares.running(folder / "anvil"))
            share.anvil.add_share("projects", extendedInfo={MARK: "any"})
            stack.enter_context(shares.bound(share))
            cache = f"cache_dir={folder}/cache,cache_free=1M"
            found[role, "posix"] = Storage(folder / "data", [], folder / "posix")
            found[role, "s3"] = Storage(f"s3://{role}", ["--endpoint-url", server.url, "-o", cache], folder / "s3")
            found[role, "ceph"] = Storage(
                f"ceph:///{role}", ["-o", f"conf={cluster.configuration},client=fs"], folder / "ceph"
            )
            found[role, "share"] = Storage(share.source, ["-o", share.options], folder / "share")
        yield found


@pytest.fixture(scope="module")
def sources(storages, module_place):
    """Return a mount of each kind that is copied from, with a tree in it, and the tree as it was made."""
    gardens = {plain: Garden(module_place / f"garden-{plain}", 5, plain=plain) for plain in (False, True)}
    for garden in gardens.values():
        garden.grow(FILES)
    mounts = {}
    with contextlib.ExitStack() as stack:
        for kind in KINDS:
            mounts[kind] = mount = storages["from", kind].start()
            stack.callback(mounting._end, mount)
            done = volgate("copy", gardens[kind == "s3"].path, f"{mount.path}/tree", timeout_s=LIMIT_S)
            assert done.returncode == 0, done.stderr
        yield mounts, gardens


def seen(path, pair):
    """Return what both kinds of storage keep of a tree."""
    is_bucket = "s3" in pair
    return describe(path, links=not is_bucket, folder_times=not is_bucket)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_tree_is_identical_after_kills_on_the_way(storages, sources, pair):
    mounts, gardens = sources
    garden = gardens["s3" in pair and pair[0] == "s3"]
    chance = random.Random(repr(pair))
    target = storages["into", pair[1]]
    name = f"from-{pair[0]}"
    mount = target.start()
    try:
        copy = volgate(
            "copy", f"{mounts[pair[0]].path}/tree", f"{mount.path}/{name}", "--accept-losses", "-d", "--json"
        )
        assert copy.returncode == 0, copy.stderr
        operation_id = json.loads(copy.stdout)["operation_id"]
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.02, 0.5))
            mount.kill()
            mount = target.start()
            state = json.loads(volgate("task", "show", mount.path, operation_id, "--json").stdout)["state"]
            if state == "done":
                break
            if state != "done" and (Path(mount.path) / name).exists():  # shown just now
                done = volgate("task", "wait", mount.path, operation_id, timeout_s=LIMIT_S)
                assert done.returncode == 0
        done = volgate("task", "wait", mount.path, operation_id, timeout_s=LIMIT_S)
        assert done.returncode == 0, done.stderr
        assert seen(mount.path / name, pair) == seen(garden.path, pair)
        assert not [entry for entry in os.listdir(mount.path) if entry.startswith(".volgate")]
        counted = json.loads(volgate("quota", "check", mount.path, "--json").stdout)
        exact = counted["counted"]["used_bytes"], counted["counted"]["file_count"]
        assert used_of(mount) == exact, counted
    finally:
        mounting._end(mount)
