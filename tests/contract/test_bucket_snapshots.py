"""Snapshots of a bucket on Ceph's S3 server, which heeds few conditions, and keeps versions where it is told to."""

import os

import boto3
import pytest
import trio
from worked import Worked

from volgate.drivers.s3.store import S3ObjectStore
from volgate.errors import Stale


def keep_versions(settings):
    client = boto3.session.Session().client("s3")
    client.put_bucket_versioning(Bucket=settings.bucket, VersioningConfiguration={"Status": "Enabled"})
    return client


def test_a_content_that_was_replaced_or_deleted_is_found_among_the_versions(rgw_settings):
    keep_versions(rgw_settings).close()

    async def main():
        store = S3ObjectStore(rgw_settings)
        await store.open(writable=True)
        first = await store.put("a", b"first", metadata={"mode": "1"})
        await store.put("ab", b"first")
        await store.put("a", b"second")
        await store.delete("a")
        version = await store.find_version("a", first, 0)
        assert await store.get_version("a", version, 1, 3) == b"irs"
        assert (await store.head_version("a", version)).metadata["mode"] == "1"
        assert await store.find_version("a", "of nothing", 0) is None
        assert await store.find_version("b", first, 0) is None
        await store.close()

    trio.run(main)


@pytest.mark.parametrize("versions", [False, True], ids=["plain", "versions"])
def test_what_is_changed_here_is_kept_and_what_others_change_is_found_where_there_are_versions(
    rgw_settings, tmp_path, versions
):
    if versions:
        keep_versions(rgw_settings).close()

    async def main():
        async with trio.open_nursery() as nursery:
            worked = await Worked.on_bucket(tmp_path, S3ObjectStore(rgw_settings), nursery)
            large = os.urandom(9 << 20)
            await worked.mkdir("d")
            for name, content in {"d/here": b"here", "d/large": large, "theirs": b"theirs", "removed": b"them"}.items():
                await worked.write(name, content)
            await worked.set_attributes("theirs", mode=0o600)
            await worked.snapshot("s1")
            tree = await worked.tree()
            await worked.write("d/here", b"changed")
            await worked.remove("d/large")
            await worked.rename("d", "e")
            await worked.backend.drain()
            assert await worked.tree_of("s1") == tree
            await worked.close()
            client = boto3.session.Session().client("s3")
            client.put_object(Bucket=rgw_settings.bucket, Key=f"{rgw_settings.prefix}theirs", Body=b"by others")
            client.delete_object(Bucket=rgw_settings.bucket, Key=f"{rgw_settings.prefix}removed")
            client.close()
            worked = await Worked.on_bucket(tmp_path / "another", S3ObjectStore(rgw_settings), nursery)
            if versions:
                assert await worked.tree_of("s1") == tree
            else:
                with pytest.raises(Stale, match="behind the mount"):
                    await worked.tree_of("s1")
            await worked.volume.snapshots.delete("s1")
            await worked.close()

    (tmp_path / "another").mkdir()
    trio.run(main)


def test_what_is_changed_here_stays_whole_when_a_rule_of_the_bucket_ends_old_versions(rgw_settings, tmp_path):
    """Why it is kept as a copy even where the bucket has versions: their end is up to the bucket's lifecycle."""
    keep_versions(rgw_settings).close()

    async def main():
        async with trio.open_nursery() as nursery:
            worked = await Worked.on_bucket(tmp_path, S3ObjectStore(rgw_settings), nursery)
            await worked.write("changed", b"old")
            await worked.write("removed", os.urandom(9 << 20))
            await worked.snapshot("s1")
            tree = await worked.tree()
            await worked.write("changed", b"new")
            await worked.remove("removed")
            await worked.backend.drain()
            await worked.close()
            assert end_old_versions(rgw_settings) >= 2
            worked = await Worked.on_bucket(tmp_path / "another", S3ObjectStore(rgw_settings), nursery)
            assert await worked.tree_of("s1") == tree
            await worked.close()

    (tmp_path / "another").mkdir()
    trio.run(main)


def end_old_versions(settings):
    """Remove all that are not the newest, as NoncurrentVersionExpiration does; returns how many."""
    client = boto3.session.Session().client("s3")
    pages = client.get_paginator("list_object_versions").paginate(Bucket=settings.bucket)
    old = [version for page in pages for version in page.get("Versions", []) if not version["IsLatest"]]
    for version in old:
        client.delete_object(Bucket=settings.bucket, Key=version["Key"], VersionId=version["VersionId"])
    client.close()
    return len(old)
