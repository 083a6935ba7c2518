"""The memory driver, the reference, under the contract."""

import pytest

from volgate.drivers.memory import MemoryBackend
from volgate.testing.backend_contract import BackendContract


class TestMemory(BackendContract):
    @pytest.fixture
    def make_backend(self):
        first = MemoryBackend()
        return lambda: MemoryBackend(first.tree)
