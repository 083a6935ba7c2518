"""Programs that people run, on a mounted volume with a limit."""

import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mounting import mounted, spawn, walk_usage


@pytest.fixture
def mount(place):
    with mounted(place, "--quota", "2GiB") as mount:
        yield mount
        assert (mount.status()["used_bytes"], mount.status()["file_count"]) == walk_usage(mount.backing)


def sh(script, cwd, **options):
    done = subprocess.run(
        ["bash", "-euc", script], cwd=cwd, capture_output=True, text=True, timeout=200, check=False, **options
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_git(mount):
    sh(
        """
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
        git init -q one; cd one
        for n in $(seq 200); do echo "$n" > "file-$n"; done
        git add .; git commit -qm first
        for n in $(seq 100); do echo "more $n" >> "file-$n"; done
        git commit -qam second; git gc -q; git fsck --strict
        cd ..; git clone -q one two; cd two; git status --porcelain; test "$(git log --oneline | wc -l)" = 2
        """,
        mount.path,
    )


def insert(path, mode, worker):
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.execute(f"PRAGMA journal_mode={mode}")
    for n in range(50):
        database.execute("INSERT INTO t VALUES (?, ?)", (worker, n))
    database.close()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_sqlite_with_four_writers(mount, mode):
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


def test_make(mount):
    rules = "all: prog\nOBJ = $(patsubst %,u%.o,$(shell seq 30))\nprog: $(OBJ) main.o\n\tcc -o $@ $^\n"
    (mount.path / "Makefile").write_text(rules)
    for n in range(1, 31):
        (mount.path / f"u{n}.c").write_text(f"int f{n}(void) {{ return {n}; }}\n")
    calls = " + ".join(f"f{n}()" for n in range(1, 31))
    declared = "".join(f"int f{n}(void);" for n in range(1, 31))
    (mount.path / "main.c").write_text(f"{declared} int main(void) {{ return ({calls}) != 465; }}\n")
    sh("make -s -j4; ./prog; make -s -q", mount.path)


def test_rsync_and_tar_round_trips_keep_content_and_metadata(mount, place):
    source = place / "source"
    shutil.copytree(Path(sys.prefix) / "lib", source, symlinks=True, ignore=shutil.ignore_patterns("mypy*", "boto*"))
    os.link(next(p for p in source.rglob("*.py") if p.is_file()), source / "hard")
    sh(
        f"""
        rsync -aHAX --checksum {source}/ synced/
        touch -d 2001-01-01 synced/hard; rsync -aHAX --checksum --inplace {source}/ synced/
        test -z "$(rsync -aHAXnc --itemize-changes {source}/ synced/)"
        tar -C {source} -cf all.tar . && mkdir untarred && tar -C untarred -xpf all.tar
        test -z "$(rsync -aHnc --itemize-changes {source}/ untarred/)"
        """,
        mount.path,
    )


def test_pip_installs_into_an_environment_on_the_mount(mount):
    sh(
        f"""
        {sys.executable} -m venv env
        env/bin/pip install -q --disable-pip-version-check attrs
        env/bin/python -c 'import attrs'
        """,
        mount.path,
    )


def test_postgresql(mount):
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    user = pwd.getpwnam("postgres")
    home = mount.path / "pg"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    sh(
        f"""
        export PATH={binaries}:$PATH
        initdb -D data --no-sync >/dev/null
        pg_ctl -D data -w -l log -o "-k $PWD -c listen_addresses=''" start >/dev/null
        trap 'pg_ctl -D data -m immediate stop >/dev/null' EXIT
        createdb -h "$PWD" bench
        pgbench -h "$PWD" -q -i -s 2 bench 2>/dev/null
        pgbench -h "$PWD" -c 4 -t 200 bench | grep 'processed: 800/800'
        pg_ctl -D data -m fast stop >/dev/null
        pg_ctl -D data -w -l log -o "-k $PWD -c listen_addresses=''" start >/dev/null
        test "$(psql -h "$PWD" -At -c 'select count(*) from pgbench_history' bench)" = 800
        """,
        home,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
    )
