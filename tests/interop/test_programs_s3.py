"""Programs that people run, on a volume in a bucket, which is then mounted anew from the bucket alone."""

import contextlib
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

import s3_server
from mounting import spawn, used_of, walk_usage
from test_programs import insert, sh


@pytest.fixture
def bucket(place):
    """Return what mounts the bucket, each time with a cache that knows nothing of it."""
    with s3_server.running(place / "s3") as server:
        server.make_bucket("bucket")

        @contextlib.contextmanager
        def mounted(name):
            with s3_server.mounted(server, "bucket/volume", place, "--quota", "2GiB", name=name) as mount:
                yield mount

        yield mounted


def sums(directory):
    return sh("find . -printf '%P %y %m %U %G %s %Ts %l\\n' | sed -E 's/^([^ ]* d .*) [0-9]+ [0-9]+ $/\\1/' | sort; "
              "find . -type f -print0 | sort -z | xargs -0 sha256sum", directory)  # fmt: skip


@contextlib.contextmanager
def kept(bucket, place):
    """Give a mount to work on; what it then holds is there when the bucket is mounted elsewhere."""
    with bucket("one") as mount:
        yield mount
        before, used = sums(mount.path), used_of(mount)
    with bucket("two") as mount:
        assert sums(mount.path) == before
        assert used_of(mount) == used == walk_usage(place / "s3/bucket/volume")


def test_git(bucket, place):
    with kept(bucket, place) as mount:
        sh(
            """
            export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
            git init -q one; cd one
            for n in $(seq 100); do echo "$n" > "file-$n"; done
            git add .; git commit -qm first
            for n in $(seq 50); do echo "more $n" >> "file-$n"; done
            git commit -qam second; git gc -q; git fsck --strict
            cd ..; git clone -q one two; cd two; git status --porcelain; test "$(git log --oneline | wc -l)" = 2
            """,
            mount.path,
        )


def test_rsync_and_tar_round_trips_keep_content_and_metadata(bucket, place):
    source = place / "source"
    library = Path(sys.prefix) / "lib"
    shutil.copytree(next(library.rglob("_pytest")), source, symlinks=True)
    (source / "link").symlink_to("python.py")
    with kept(bucket, place) as mount:
        sh(
            f"""
            rsync -aX --checksum {source}/ synced/
            touch -d 2001-01-01 synced/python.py; echo more >> {source}/python.py
            rsync -aX --checksum --inplace {source}/ synced/
            test -z "$(rsync -aXnc --itemize-changes {source}/ synced/)"
            tar -C {source} -cf all.tar . && mkdir untarred && tar -C untarred -xpf all.tar
            test -z "$(rsync -anc --itemize-changes {source}/ untarred/)"
            mv untarred moved; rm -r synced
            """,
            mount.path,
        )


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_sqlite_with_four_writers(bucket, place, mode):
    with kept(bucket, place) as mount:
        path = mount.path / "test.db"
        database = sqlite3.connect(path)
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("CREATE TABLE t (worker, n)")
        database.commit()
        database.close()
        for child in [spawn(insert, path, mode, worker) for worker in range(4)]:
            child.result()
        database = sqlite3.connect(path)
        assert database.execute("SELECT count(*) FROM t").fetchone() == (200,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()


@pytest.mark.timeout(200)
def test_pip_installs_into_an_environment_on_the_mount(bucket, place):
    with kept(bucket, place) as mount:
        sh(
            f"""
            {sys.executable} -m venv env
            env/bin/pip install -q --disable-pip-version-check attrs
            env/bin/python -c 'import attrs'
            """,
            mount.path,
        )
