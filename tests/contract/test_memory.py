"""The memory driver, the reference, under the contract."""

import pytest

from volgate.drivers.memory import MemoryBackend
from volgate.testing.backend_contract import OWNER, BackendContract, run


class TestMemory(BackendContract):
    @pytest.fixture
    def make_backend(self):
        first = MemoryBackend()
        return lambda: MemoryBackend(first.tree)


def test_the_bytes_of_an_unlinked_file_are_freed_at_its_last_close():
    backend = MemoryBackend()

    async def test(backend, root):
        file, _ = await backend.create_file(root, b"f", 0o600, OWNER)
        await file.write(0, bytes(100_000))
        again = await file.reopen(writable=False)
        await backend.remove(root, b"f", is_directory=False)
        await file.close()
        assert await again.read(0, 10) == bytes(10)
        await again.close()
        assert backend.tree.used_bytes == 0

    run(lambda: backend, test)
