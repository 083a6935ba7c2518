"""The contract suite of the ObjectStore port: a driver proves itself by subclassing it in ten lines.

```
class TestMyStore(ObjectStoreContract):
    @pytest.fixture
    def make_store(self):
        return lambda: MyStore(...)
```
Each call of ``make_store`` returns a fresh object for the same empty bucket or prefix. A condition that the store's
capabilities do not promise is not asked for.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
import trio

from volgate import errors
from volgate.drivers.object_store import ObjectStore, UploadedPart

MakeStore = Callable[[], ObjectStore]
ODD_KEYS: Final = (
    "a//b",
    "./a",
    "a/../b",
    "..",
    "x/",
    "a b+c%20d",
    "ä/ü",
    "q?x=1&y",
    "#",
    "tab\tand\nline",
    "~*'()",
    "\U0001f600",
)


def run(make_store: MakeStore, test: Callable[[Any], Awaitable[None]]) -> None:
    """Run one test on an open store."""

    async def main() -> None:
        store = make_store()
        await store.open(writable=True)
        try:
            await test(store)
        finally:
            await store.close()

    trio.run(main)


async def names(store: ObjectStore, prefix: str = "") -> list[str]:
    """Return all keys below a prefix, but not the gateway's own."""
    return [listed.key async for listed in store.list_objects(prefix) if not listed.key.startswith(".volgate/")]


class ObjectStoreContract:
    """Tests of every store."""

    odd_keys = ODD_KEYS
    """Keys that this store can hold; a server on a file system cannot hold them all."""

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Return a function that makes a store on the same, at first empty, bucket or prefix."""
        raise NotImplementedError

    def test_an_object_is_read_as_it_was_put(self, make_store: MakeStore) -> None:
        """Guarantee 4."""

        async def test(store: ObjectStore) -> None:
            body = os.urandom(100_000)
            etag = await store.put("d/f", body, metadata={"mode": "33188", "x-y": "a b"}, content_type="text/plain")
            info = await store.head("d/f")
            assert (info.key, info.size, info.etag, info.content_type) == ("d/f", 100_000, etag, "text/plain")
            assert info.metadata["mode"] == "33188" and info.metadata["x-y"] == "a b"
            assert info.modified_at > 1_600_000_000
            assert await store.get_range("d/f", 0, 200_000) == body

        run(make_store, test)

    def test_ranges(self, make_store: MakeStore) -> None:
        """Bytes beyond the end do not exist."""

        async def test(store: ObjectStore) -> None:
            etag = await store.put("f", b"0123456789")
            for offset, length in ((0, 1), (3, 4), (9, 1), (8, 100), (10, 1), (100, 5), (2, 0)):
                expected = b"0123456789"[offset : offset + length]
                assert await store.get_range("f", offset, length, etag=etag) == expected
            await store.put("empty", b"")
            assert await store.get_range("empty", 0, 10) == b""
            assert (await store.head("empty")).size == 0

        run(make_store, test)

    def test_what_is_not_there_is_not_found(self, make_store: MakeStore) -> None:
        """And deleting it is no error."""

        async def test(store: ObjectStore) -> None:
            for attempt in (store.head("f"), store.get_range("f", 0, 1), store.copy("f", "g"), store.head("f/g")):
                with pytest.raises(errors.NotFound):
                    await attempt
            await store.delete("f")
            await store.abort_upload("f", "0")

        run(make_store, test)

    def test_another_version_is_stale_to_readers(self, make_store: MakeStore) -> None:
        """Guarantee 3."""

        async def test(store: ObjectStore) -> None:
            first = await store.put("f", b"first")
            second = await store.put("f", b"second, longer")
            assert first != second
            with pytest.raises(errors.Stale):
                await store.get_range("f", 0, 5, etag=first)
            with pytest.raises(errors.Stale):
                await store.get_range("f", 1000, 5, etag=first)
            assert await store.get_range("f", 0, 6, etag=second) == b"second"

        run(make_store, test)

    def test_deleting(self, make_store: MakeStore) -> None:
        """Guarantee 5."""

        async def test(store: ObjectStore) -> None:
            etag = await store.put("f", b"x")
            if store.capabilities.conditional_delete:
                with pytest.raises(errors.Stale):
                    await store.delete("f", if_match="0" * 32)
                assert (await store.head("f")).etag == etag
            await store.delete("f", if_match=etag)
            assert await names(store) == []

        run(make_store, test)

    def test_a_put_with_a_condition_changes_nothing_where_it_fails(self, make_store: MakeStore) -> None:
        """Guarantee 5."""

        async def test(store: ObjectStore) -> None:
            assert store.capabilities.conditional_put
            etag = await store.put("f", b"one", if_absent=True)
            with pytest.raises(errors.AlreadyExists):
                await store.put("f", b"two", if_absent=True)
            with pytest.raises(errors.Stale):
                await store.put("f", b"two", if_match="0" * 32)
            with pytest.raises(errors.Stale):
                await store.put("missing", b"two", if_match=etag)
            assert await store.get_range("f", 0, 10) == b"one"
            assert await store.put("f", b"two", if_match=etag) != etag
            assert await names(store) == ["f"]

        run(make_store, test)

    def test_of_many_who_put_at_once_where_nothing_stands_one_wins(self, make_store: MakeStore) -> None:
        """Guarantee 5."""

        async def test(store: ObjectStore) -> None:
            won: list[int] = []

            async def put(number: int) -> None:
                try:
                    await store.put("f", str(number).encode(), if_absent=True)
                except errors.AlreadyExists:
                    return
                won.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(16):
                    nursery.start_soon(put, number)
            assert len(won) == 1
            assert await store.get_range("f", 0, 10) == str(won[0]).encode()

        run(make_store, test)

    def test_a_copy_keeps_or_replaces_metadata(self, make_store: MakeStore) -> None:
        """Guarantees 3 and 5."""

        async def test(store: ObjectStore) -> None:
            etag = await store.put("f", b"content", metadata={"mode": "1"}, content_type="text/plain")
            await store.copy("f", "d/g", source_etag=etag)
            found = await store.head("d/g")
            assert (found.metadata["mode"], found.content_type, found.size) == ("1", "text/plain", 7)
            await store.copy("f", "f", source_etag=etag, metadata={"mode": "2"}, content_type="text/html")
            found = await store.head("f")
            assert (found.metadata.get("mode"), found.content_type) == ("2", "text/html")
            assert await store.get_range("f", 0, 10) == b"content"
            if store.capabilities.conditional_copy:
                with pytest.raises(errors.Stale):
                    await store.copy("f", "h", source_etag="0" * 32)
                assert await names(store) == ["d/g", "f"]

        run(make_store, test)

    def test_what_another_store_has_is_copied_too(self, make_store: MakeStore) -> None:
        """Guarantees 3 and 5, of a store that ``can_copy_of`` says."""

        async def test(store: ObjectStore) -> None:
            other = make_store()
            assert store.can_copy_of(store)
            if not store.can_copy_of(other):
                return
            await other.open(writable=True)
            try:
                body = os.urandom(3 * store.min_part_bytes)
                etag = await other.put("f", body, metadata={"mode": "1"})
                await store.copy("f", "g", source_etag=etag, of=other)
                assert (await store.head("g")).metadata["mode"] == "1"
                upload_id = await store.begin_upload("h")
                size = store.min_part_bytes
                parts = [
                    await store.copy_part(
                        "h", upload_id, number + 1, "f", number * size, size, source_etag=etag, of=other
                    )
                    for number in (0, 1)
                ]
                await store.complete_upload("h", upload_id, parts)
                assert await store.get_range("g", 0, len(body)) == body
                assert await store.get_range("h", 0, len(body)) == body[: 2 * size]
                with pytest.raises(errors.NotFound):
                    await store.copy("missing", "i", of=other)
            finally:
                await other.close()

        run(make_store, test)

    def test_listings_come_in_order_folded_and_in_pages(self, make_store: MakeStore) -> None:
        """Guarantee 4."""

        async def test(store: ObjectStore) -> None:
            keys = ["a", "b/1", "b/2", "b/c/3", "b-", "d/e/f", "z"]
            for key in keys:
                await store.put(key, key.encode())
            assert await names(store) == sorted(keys)
            assert await names(store, "b/") == ["b/1", "b/2", "b/c/3"]
            found = await store.list_page("b/", delimiter="/")
            assert [listed.key for listed in found.objects] == ["b/1", "b/2"]
            assert (found.prefixes, found.next_page) == (("b/c/",), None)
            assert [listed.size for listed in found.objects] == [3, 3]
            assert found.objects[0].etag == (await store.head("b/1")).etag
            seen: list[str] = []
            page = None
            while True:
                found = await store.list_page(delimiter="/", page=page, limit=2)
                assert len(found.objects) + len(found.prefixes) <= 2
                seen += [listed.key for listed in found.objects] + list(found.prefixes)
                page = found.next_page
                if page is None:
                    break
            assert sorted(set(seen) - {".volgate/"}) == ["a", "b-", "b/", "d/", "z"]
            assert len(seen) == len(set(seen))

        run(make_store, test)

    def test_keys_are_taken_as_they_are(self, make_store: MakeStore) -> None:
        """Guarantee 2."""

        async def test(store: ObjectStore) -> None:
            content = {key: b"" if key.endswith("/") else key.encode() for key in self.odd_keys}
            for key in self.odd_keys:
                await store.put(key, content[key])
            assert await names(store) == sorted(self.odd_keys, key=str.encode)
            for key in self.odd_keys:
                assert await store.get_range(key, 0, 100) == content[key]
                if not key.endswith("/"):
                    await store.copy(key, "copy")
                    assert await store.get_range("copy", 0, 100) == content[key]
                await store.delete(key)
            await store.delete("copy")
            assert await names(store) == []

        run(make_store, test)

    def test_an_upload_is_seen_when_it_is_complete(self, make_store: MakeStore) -> None:
        """Guarantees 3 and 4."""

        async def test(store: ObjectStore) -> None:
            size = store.min_part_bytes
            first, last = os.urandom(size), b"the end"
            old = await store.put("f", first + first)
            upload_id = await store.begin_upload("f", metadata={"mode": "7"}, content_type="text/plain")
            two = await store.put_part("f", upload_id, 2, last)
            await store.put_part("f", upload_id, 1, last)
            one = await store.copy_part("f", upload_id, 1, "f", 0, size, source_etag=old)
            assert (await store.head("f")).etag == old
            assert [(found.key, found.upload_id) for found in await store.list_uploads()] == [("f", upload_id)]
            etag = await store.complete_upload("f", upload_id, [two, one])
            found = await store.head("f")
            assert (found.size, found.etag, found.metadata["mode"]) == (size + len(last), etag, "7")
            assert await store.get_range("f", size - 1, 100) == first[-1:] + last
            assert await store.list_uploads() == []

        run(make_store, test)

    def test_an_upload_that_must_not_replace_does_not(self, make_store: MakeStore) -> None:
        """Guarantee 5."""

        async def test(store: ObjectStore) -> None:
            if not store.capabilities.conditional_complete:
                return
            upload_id = await store.begin_upload("f")
            part = await store.put_part("f", upload_id, 1, b"part")
            etag = await store.put("f", b"was faster")
            with pytest.raises(errors.AlreadyExists):
                await store.complete_upload("f", upload_id, [part], if_absent=True)
            assert (await store.head("f")).etag == etag
            newer = await store.put("f", b"was faster still")
            with pytest.raises(errors.Stale):
                await store.complete_upload("f", upload_id, [part], if_match=etag)
            assert (await store.head("f")).etag == newer
            made = await store.complete_upload("f", upload_id, [part], if_match=newer)
            assert (await store.head("f")).etag == made != newer
            upload_id = await store.begin_upload("f")
            part = await store.put_part("f", upload_id, 1, b"part")
            await store.delete("f")
            with pytest.raises(errors.Stale):
                await store.complete_upload("f", upload_id, [part], if_match=newer)
            await store.abort_upload("f", upload_id)
            assert await store.list_uploads() == []

        run(make_store, test)

    def test_an_upload_that_is_given_up_leaves_nothing(self, make_store: MakeStore) -> None:
        """And it is not found any more."""

        async def test(store: ObjectStore) -> None:
            upload_id = await store.begin_upload("d/f")
            part = await store.put_part("d/f", upload_id, 1, b"x")
            assert await store.list_uploads("e") == []
            assert len(await store.list_uploads("d/")) == 1
            await store.abort_upload("d/f", upload_id)
            for attempt in (store.put_part("d/f", upload_id, 1, b"x"), store.head("d/f")):
                with pytest.raises(errors.NotFound):
                    await attempt
            with pytest.raises(errors.StorageException):  # Ceph's RGW answers 500
                await store.complete_upload("d/f", upload_id, [part])

        run(make_store, test)

    def test_parts_that_were_not_stored_are_refused(self, make_store: MakeStore) -> None:
        """Guarantee 3."""

        async def test(store: ObjectStore) -> None:
            upload_id = await store.begin_upload("f")
            await store.put_part("f", upload_id, 1, b"x")
            with pytest.raises(errors.StorageException):
                await store.complete_upload("f", upload_id, [UploadedPart(1, "0" * 32, 1)])
            assert await names(store) == []
            await store.abort_upload("f", upload_id)

        run(make_store, test)

    def test_a_key_that_is_too_long_is_refused_before_it_is_sent(self, make_store: MakeStore) -> None:
        """S3's limit counts bytes, not characters."""

        async def test(store: ObjectStore) -> None:
            with pytest.raises(errors.NameTooLong):
                await store.put("k" * 1025, b"")

        run(make_store, test)

    def test_a_cancelled_call_leaves_the_store_usable(self, make_store: MakeStore) -> None:
        """Guarantee 6."""

        async def test(store: ObjectStore) -> None:
            await store.put("f", bytes(3 << 20))
            for after_s in (0, 0.001, 0.005):
                with trio.move_on_after(after_s):
                    await store.get_range("f", 0, 3 << 20)
            assert len(await store.get_range("f", 0, 3 << 20)) == 3 << 20

        run(make_store, test)

    def test_many_calls_at_once(self, make_store: MakeStore) -> None:
        """Calls do not disturb each other."""

        async def test(store: ObjectStore) -> None:
            async def work(number: int) -> None:
                body = os.urandom(1000)
                etag = await store.put(f"f{number}", body)
                assert await store.get_range(f"f{number}", 0, 2000, etag=etag) == body

            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(work, number)
            assert len(await names(store)) == 100

        run(make_store, test)
