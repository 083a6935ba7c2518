"""A volume made of objects under the same contract as a directory: on the reference store and on a real server."""

import itertools

import pytest

import s3_server
from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.drivers.s3.settings import S3Settings
from volgate.drivers.s3.store import S3ObjectStore
from volgate.testing.backend_contract import BackendContract

BUCKETS = itertools.count()


class OfObjects(BackendContract):
    illegal_names = frozenset({b"\xff\xfe"})

    def make_store(self):
        raise NotImplementedError

    @pytest.fixture
    def make_backend(self, make_store, tmp_path):
        numbers = itertools.count()
        return lambda: CachedBackend(make_store(), CacheSettings(tmp_path / str(next(numbers)), min_free_bytes=0))


class TestOnMemory(OfObjects):
    @pytest.fixture
    def make_store(self):
        store = MemoryObjectStore()
        return lambda: store


@pytest.fixture(scope="module")
def server(module_place):
    with s3_server.running(module_place / "s3") as found:
        yield found


class TestOnVersitygw(OfObjects):
    @pytest.fixture
    def make_store(self, server, monkeypatch):
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        bucket = f"bucket-{next(BUCKETS)}"
        server.make_bucket(bucket)
        settings = S3Settings.from_source(f"s3://{bucket}/some/prefix", {})
        return lambda: S3ObjectStore(settings)
