"""Real S3 servers, each module's own: versitygw, and a Ceph cluster's gateway."""

import itertools
import os
import re
import subprocess
from pathlib import Path

import boto3
import pytest

import s3_server
from volgate.drivers.s3.settings import S3Settings

BUCKETS = itertools.count()


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as found:
        yield found


@pytest.fixture
def settings(server, monkeypatch):
    """Return the settings of an empty bucket."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{next(BUCKETS)}"
    server.make_bucket(bucket)
    return S3Settings.from_source(f"s3://{bucket}/some/prefix", {})


@pytest.fixture(scope="module")
def ceph(module_place):
    """Return the environment of a client of a real Ceph's S3 gateway, which holds every key and ignores conditions."""
    tool = [Path(__file__).parents[2] / "tools" / "mini-ceph"]
    options = ["--dir", module_place / "ceph", "--port-base", str(20_000 + os.getpid() % 200 * 100)]
    subprocess.run([*tool, "start", "--no-fs", *options], check=True, timeout=100)
    try:
        said = subprocess.run([*tool, "env", *options], check=True, capture_output=True, text=True).stdout
        yield dict(re.findall(r"^export (AWS_\w+)=(\S+)$", said, re.MULTILINE))
    finally:
        subprocess.run([*tool, "wipe", *options], check=True, timeout=60)


@pytest.fixture
def rgw_settings(ceph, monkeypatch):
    """Return the settings of an empty bucket of Ceph's."""
    for name, value in ceph.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{next(BUCKETS)}"
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket=bucket)
    client.close()
    return S3Settings.from_source(f"s3://{bucket}/some/prefix", {})
