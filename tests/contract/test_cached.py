"""A volume made of objects under the same contract as a directory: on the reference store and on real servers."""

import itertools

import pytest

from volgate.cache.backend import CachedBackend
from volgate.cache.settings import CacheSettings
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.drivers.s3.store import S3ObjectStore
from volgate.testing.backend_contract import BackendContract


class OfObjects(BackendContract):
    illegal_names = frozenset({b"\xff\xfe"})

    @pytest.fixture
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


class TestOnVersitygw(OfObjects):
    @pytest.fixture
    def make_store(self, settings):
        return lambda: S3ObjectStore(settings)


class TestOnCeph(OfObjects):
    """Without conditions but those of a put."""

    @pytest.fixture
    def make_store(self, rgw_settings):
        return lambda: S3ObjectStore(rgw_settings)
