"""The S3 driver and the reference store: the contract, and what only a server over the net can do."""

import contextlib
import subprocess
import traceback

import attrs
import boto3
import pytest
import trio

import faulty_http
import forward_proxy
import s3_server
from faulty_http import Fault
from volgate import errors
from volgate.drivers.memory_store import MemoryObjectStore
from volgate.drivers.object_store import StoreCapabilities
from volgate.drivers.s3.credentials import Credentials
from volgate.drivers.s3.settings import S3Settings
from volgate.drivers.s3.store import S3ObjectStore
from volgate.testing.object_store_contract import ODD_KEYS, ObjectStoreContract


class TestMemory(ObjectStoreContract):
    @pytest.fixture
    def make_store(self):
        store = MemoryObjectStore()
        return lambda: store


class TestVersitygw(ObjectStoreContract):
    # Its keys are paths: no empty or dotted components, and a directory ends in a slash.
    odd_keys = tuple(key for key in ODD_KEYS if key not in ("a//b", "./a", "a/../b", ".."))

    @pytest.fixture
    def make_store(self, settings):
        return lambda: S3ObjectStore(settings)


class TestCephRgw(ObjectStoreContract):
    """Holds every key, wants etags bare, and ignores most conditions."""

    @pytest.fixture
    def make_store(self, rgw_settings):
        return lambda: S3ObjectStore(rgw_settings)


def test_what_ceph_ignores_is_found_out(rgw_settings):
    store = opening(rgw_settings)
    assert store.capabilities == StoreCapabilities(conditional_put=True)
    assert not store.quotes_etags


class TestVersitygwBehindAProxy(ObjectStoreContract):
    """The proxy of the fault tests itself changes nothing."""

    odd_keys = TestVersitygw.odd_keys

    @pytest.fixture
    def make_store(self, settings, server):
        with faulty_http.proxy(server.url) as (url, _, _):
            yield lambda: S3ObjectStore(attrs.evolve(settings, endpoint_url=url))


# -- faults: what the network and the server do to one request ---------------------------------------------------


@pytest.fixture
def faulty(settings, server):
    """Return a function that runs a test with (store, faults, requests seen)."""
    with faulty_http.proxy(server.url) as (url, faults, seen):

        def run_with(test):
            async def main():
                store = S3ObjectStore(attrs.evolve(settings, endpoint_url=url))
                await test(store, faults, seen)
                await store.close()

            trio.run(main)

        yield run_with


def test_a_put_whose_reply_was_lost_is_no_lost_race(faulty):
    async def test(store, faults, seen):
        faults.append(Fault(faulty_http.lose_reply, "PUT"))
        etag = await store.put("f", b"mine", if_absent=True)
        assert (await store.head("f")).etag == etag
        faults.append(Fault(faulty_http.lose_reply, "PUT"))
        again = await store.put("f", b"mine again", if_match=etag)
        assert again != etag and await store.get_range("f", 0, 20) == b"mine again"
        assert sum(line.startswith("PUT") for line in seen) == 4, "the runtime tried again by itself"

    faulty(test)


def test_a_put_that_lost_its_reply_and_then_its_race_says_so(faulty):
    async def test(store, faults, seen):
        await store.put("f", b"theirs")
        faults.append(Fault(faulty_http.lose_reply, "PUT"))
        with pytest.raises(errors.AlreadyExists):
            await store.put("f", b"mine", if_absent=True)
        assert await store.get_range("f", 0, 20) == b"theirs"

    faulty(test)


def test_an_upload_whose_last_reply_was_lost_is_complete(faulty):
    async def test(store, faults, seen):
        upload_id = await store.begin_upload("f")
        part = await store.put_part("f", upload_id, 1, b"whole")
        faults += [Fault(faulty_http.lose_reply, "POST"), Fault(faulty_http.know_no_upload, "POST", times=2)]
        etag = await store.complete_upload("f", upload_id, [part])
        assert (await store.head("f")).etag == etag
        assert sum("uploadId" in line and line.startswith("POST") for line in seen) == 2
        await store.put("f", b"another's")
        with pytest.raises(errors.NotFound):
            await store.complete_upload("f", upload_id, [part])

    faulty(test)


def test_new_objects_are_stored_as_the_settings_say_and_every_request_says_who_pays(settings, server):
    wanted = {"storage_class": "STANDARD_IA", "encryption": "aws:kms", "kms_key": "a-key", "requester_pays": True}
    with faulty_http.proxy(server.url) as (url, faults, _):
        asked = []

        def note(handler, ask):
            asked.append((handler.command, dict(handler.headers)))
            handler.answer(*ask())

        async def main():
            store = S3ObjectStore(attrs.evolve(settings, endpoint_url=url, **wanted))
            faults.append(Fault(note, times=10))
            await store.put("a", b"x")
            await store.copy("a", "b")
            await store.begin_upload("c")
            await store.get_range("a", 0, 1)
            await store.close()

        trio.run(main)
    for method, headers in asked:
        sent = {name.lower(): value for name, value in headers.items()}
        assert sent["x-amz-request-payer"] == "requester"
        assert (sent.get("x-amz-storage-class") == "STANDARD_IA") == (method != "GET")
        assert (sent.get("x-amz-server-side-encryption") == "aws:kms") == (method != "GET")
        assert (sent.get("x-amz-server-side-encryption-aws-kms-key-id") == "a-key") == (method != "GET")
    assert [method for method, _ in asked] == ["PUT", "PUT", "POST", "GET"]


@pytest.mark.parametrize("spoil", [faulty_http.reset, faulty_http.slow_down, faulty_http.cut_body])
def test_a_passing_fault_is_not_noticed(faulty, spoil):
    async def test(store, faults, seen):
        body = bytes(range(256)) * 400
        faults.append(Fault(spoil, "PUT" if spoil is not faulty_http.cut_body else "GET"))
        etag = await store.put("f", body)
        faults.append(Fault(spoil, "GET"))
        assert await store.get_range("f", 10, len(body), etag=etag) == body[10:]

    faulty(test)


def test_a_server_that_keeps_failing_is_unavailable(faulty):
    async def test(store, faults, seen):
        faults.append(Fault(faulty_http.slow_down, times=100))
        with pytest.raises(errors.Unavailable, match="cannot serve now"):
            await store.get_range("f", 0, 1)
        assert 3 < len(seen) < 10
        faults.clear()
        with pytest.raises(errors.NotFound):
            await store.head("f")

    faulty(test)


def test_status_200_with_an_error_in_it_is_an_error(faulty):
    async def test(store, faults, seen):
        await store.put("f", b"x")
        faults.append(Fault(faulty_http.say_done_with_an_error, "PUT", times=100))
        with pytest.raises(errors.Unavailable, match="cannot serve now"):
            await store.copy("f", "g")
        faults.clear()
        upload_id = await store.begin_upload("h")
        part = await store.put_part("h", upload_id, 1, b"x")
        faults.append(Fault(faulty_http.say_done_with_an_error, "POST", times=100))
        with pytest.raises(errors.Unavailable, match="cannot serve now"):
            await store.complete_upload("h", upload_id, [part])
        faults.clear()
        with pytest.raises(errors.NotFound):
            await store.head("h")

    faulty(test)


def test_a_server_that_hangs_times_out_and_others_go_on(faulty, monkeypatch):
    monkeypatch.setattr("volgate.drivers.s3.client._BASE_DEADLINE_S", 0.5)

    async def test(store, faults, seen):
        await store.put("g", b"x")
        faults.append(Fault(faulty_http.hang, "GET"))
        async with trio.open_nursery() as nursery:

            async def hang():
                with pytest.raises(errors.TimedOut):
                    await store.get_range("f", 0, 1)

            nursery.start_soon(hang)
            await trio.sleep(0.1)
            assert await store.get_range("g", 0, 1) == b"x"

    faulty(test)


def test_nonsense_is_an_error_of_ours(faulty):
    async def test(store, faults, seen):
        await store.put("f", b"x")
        faults.append(Fault(faulty_http.talk_nonsense, times=100))
        for attempt in (store.head("f"), store.list_page(), store.get_range("f", 0, 1), store.list_uploads()):
            with contextlib.suppress(errors.StorageException):
                await attempt
        with pytest.raises(errors.InputOutput):
            await store.list_page()

    faulty(test)


def test_what_cannot_be_sent_is_refused(faulty):
    async def test(store, faults, seen):
        for metadata in ({"a": "ä"}, {"a": "x\ny"}, {"A": "x"}, {"a": " x"}):
            with pytest.raises(errors.InvalidArgument):
                await store.put("f", b"", metadata=metadata)
        with pytest.raises(errors.InvalidArgument):
            await store.put("f", b"", content_type="a\r\nx-amz-acl: public-read")
        with pytest.raises(errors.InvalidArgument, match="no UTF-8"):
            await store.put("\udcff", b"")
        assert seen == []

    faulty(test)


def test_a_server_that_is_not_there_is_unavailable(settings):
    async def test():
        store = S3ObjectStore(attrs.evolve(settings, endpoint_url="http://127.0.0.1:1"))
        with pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1 does not answer"):
            await store.open(writable=True)

    trio.run(test)


# -- opening: what is said when it cannot work -------------------------------------------------------------------


def opening(settings, *, writable=True):
    async def main():
        store = S3ObjectStore(settings)
        await store.open(writable=writable)
        return store

    return trio.run(main)


def test_opening_finds_out_what_the_server_keeps(settings):
    store = opening(settings)
    assert store.capabilities == StoreCapabilities(True, True, True, True, True)
    assert store.requests["PutObject"] >= 4


def test_a_bucket_that_is_not_there_is_named(settings):
    with pytest.raises(errors.NotFound, match="there is no bucket 'missing' at 127"):
        opening(attrs.evolve(settings, bucket="missing"))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_ACCESS_KEY_ID", "unknown", "the server does not know this access key"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "the secret key does not fit the access key"),
    ],
)
def test_wrong_credentials_are_told_apart(settings, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(errors.PermissionDenied, match=said):
        opening(settings)


def test_who_may_not_ask_at_all_is_refused(settings):
    with pytest.raises(errors.PermissionDenied):
        opening(attrs.evolve(settings, anonymous=True))


def test_without_credentials_it_is_said_where_they_are_looked_for(settings, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(errors.PermissionDenied, match="set AWS_ACCESS_KEY_ID"):
        S3ObjectStore(settings)


def write_credentials(path, access_key=s3_server.ACCESS_KEY, secret_key=s3_server.SECRET_KEY):
    path.write_text(f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n")
    path.chmod(0o600)
    return path


def test_rotated_credentials_are_taken_without_opening_anew(settings, tmp_path):
    file = write_credentials(tmp_path / "credentials")

    async def main():
        store = S3ObjectStore(attrs.evolve(settings, credentials_file=file))
        await store.put("f", b"x")
        write_credentials(file, secret_key="no longer the secret of tests")
        with pytest.raises(errors.PermissionDenied):
            await store.head("f")
        file.unlink()
        with pytest.raises(errors.BadConfiguration, match="cannot be read: No such file"):
            await store.head("f")
        write_credentials(file)
        assert (await store.head("f")).size == 1

    trio.run(main)


def test_a_credential_of_the_unit_is_taken(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    write_credentials(tmp_path / "s3")
    opening(settings)


def test_a_secret_that_the_world_may_read_is_refused_and_never_shown(settings, tmp_path):
    file = write_credentials(tmp_path / "credentials")
    file.chmod(0o644)
    with pytest.raises(errors.BadConfiguration, match="all users may read it; chmod 600"):
        S3ObjectStore(attrs.evolve(settings, credentials_file=file))
    file.chmod(0o600)
    for text in (
        "",
        "canary-secret",
        "[default]\naws_secret_access_key canary-secret",
        "[default]\nkey = canary-secret",
    ):
        file.write_text(text)
        with pytest.raises(errors.BadConfiguration, match=r"write it as ~/\.aws/credentials") as caught:
            S3ObjectStore(attrs.evolve(settings, credentials_file=file))
        assert "canary" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(errors.BadConfiguration, match="cannot be read: No such file"):
        S3ObjectStore(attrs.evolve(settings, credentials_file=tmp_path / "missing"))
    assert "canary" not in repr(Credentials("key", "canary", "canary"))


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("s3://", {}, "names no bucket"),
        ("s3:///prefix", {}, "names no bucket"),
        ("s3://a b/c", {}, "names no bucket"),
        ("s3://bucket", {"endpoint_url": "localhost:9000"}, "write it as https://HOST"),
        ("s3://bucket", {"endpoint_url": "http://h/path"}, "write it as https://HOST"),
        ("s3://bucket", {"endpoint_url": "http://key:secret@h"}, "do not belong into a URL"),
        ("s3://bucket", {"addressing": "dns"}, "none of auto, path, virtual"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(source, options, said):
    with pytest.raises(errors.BadConfiguration, match=said) as caught:
        S3Settings.from_source(source, options, {})
    assert "secret" not in str(caught.value)


def test_how_a_bucket_is_addressed():
    def address(source, **options):
        found = S3Settings.from_source(source, options, {})
        return found.is_tls, found.host, found.bucket_path, found.prefix

    assert address("s3://b2b/a/c/") == (True, "b2b.s3.us-east-1.amazonaws.com", "", "a/c/")
    assert address("s3://b.b", region="eu-west-1") == (True, "s3.eu-west-1.amazonaws.com", "/b.b", "")
    assert address("s3://b2b", endpoint_url="http://h:9") == (False, "h:9", "/b2b", "")
    assert address("s3://b2b", endpoint_url="https://h", addressing="virtual") == (True, "b2b.h", "", "")


def test_a_server_of_another_authority_is_trusted_only_with_its_bundle(settings, server, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    with s3_server.running(server.data, certificate=(certificate, key)) as over_tls:
        url = over_tls.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(errors.BadConfiguration, match=r"localhost:[0-9]+ is not trusted: self-signed certificate"):
            opening(attrs.evolve(settings, endpoint_url=url))
        opening(attrs.evolve(settings, endpoint_url=url, ca_bundle=certificate))
    with pytest.raises(errors.BadConfiguration, match="cannot be read"):
        S3ObjectStore(attrs.evolve(settings, endpoint_url=url, ca_bundle=tmp_path / "missing"))


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_proxy_is_asked_where_one_is_set(settings, monkeypatch, how):
    with forward_proxy.running() as proxy:
        for name in ("http_proxy", "HTTP_PROXY"):  # the option sets them too; so they are put back afterwards
            monkeypatch.setenv(name, f"http://user:secret@{proxy.netloc}" if how == "environment" else "")
        if how == "option":
            settings = attrs.evolve(settings, proxy=f"http://{proxy.netloc}")

        async def main():
            store = S3ObjectStore(settings)
            await store.put("f", b"x" * 100_000)
            assert len(await store.get_range("f", 0, 1 << 20)) == 100_000
            await store.close()

        trio.run(main)
        assert [line.split("/bucket")[0] for line in proxy.asked[:1]] == [f"PUT {settings.endpoint_url}"]
        assert set(proxy.credentials) == ({"Basic dXNlcjpzZWNyZXQ="} if how == "environment" else set())


def test_a_proxy_that_is_not_there_is_named_without_its_password(settings, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://user:secret@127.0.0.1:9")

    async def main():
        with pytest.raises(errors.Unavailable) as caught:
            await S3ObjectStore(settings).head("f")
        assert "asked through the proxy 127.0.0.1:9, does not answer" in str(caught.value)
        assert "secret" not in str(caught.value)

    trio.run(main)


def test_hosts_that_need_no_proxy_are_asked_directly(settings, monkeypatch):
    for name, value in {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    opening(settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proxy": "https://p:1"}, "write it as http://HOST:PORT"),
        ({"proxy": "http://user:secret@p:1"}, "a password does not belong"),
        ({"upload_limit": "fast"}, "upload_limit: .*bytes a second"),
    ],
)
def test_a_proxy_or_limit_that_is_none_is_refused(options, message):
    with pytest.raises(errors.BadConfiguration, match=message) as caught:
        S3Settings.from_source("s3://bucket", options)
    assert "secret" not in str(caught.value)


def test_a_limit_holds_for_large_transfers_and_small_ones_pass(settings):
    async def main():
        store = S3ObjectStore(attrs.evolve(settings, upload_limit=2 << 20, download_limit=4 << 20))
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(store.put, f"large-{number}", bytes(1 << 20))
            await trio.sleep(0.1)
            await store.put("small", b"x")
            assert store.requests["PutObject"] == 6 and trio.current_time() - began < 1.5
        assert trio.current_time() - began >= (4 << 20) / (2 << 20) - 0.3
        began = trio.current_time()
        for number in range(5):
            await store.get_range(f"large-{number}", 0, 1 << 20)
        assert trio.current_time() - began >= (4 << 20) / (4 << 20) - 0.3
        await store.close()

    trio.run(main)


def test_a_bucket_that_keeps_versions_is_known(rgw_settings):
    assert opening(rgw_settings).keeps_versions is False
    client = boto3.session.Session().client("s3")
    client.put_bucket_versioning(Bucket=rgw_settings.bucket, VersioningConfiguration={"Status": "Enabled"})
    client.close()
    assert opening(rgw_settings).keeps_versions is True


def test_a_listing_that_never_ends_is_an_error(faulty):
    def go_round(handler, ask):
        text = b"<R><IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken></R>"
        handler.answer(200, {"Content-Length": str(len(text)), "Content-Type": "application/xml"}, text)

    async def test(store, faults, seen):
        faults.append(Fault(go_round, "GET", times=50))
        with pytest.raises(errors.InputOutput, match="the same page comes again"):
            async for _ in store.list_objects("x"):
                pass
        assert len(seen) == 2

    faulty(test)


def test_a_clock_that_is_too_far_off_is_named(faulty):
    def refuse(handler, ask):
        body = b"<?xml version='1.0'?><Error><Code>RequestTimeTooSkewed</Code><Message>no.</Message></Error>"
        handler.answer(403, {"Content-Length": str(len(body)), "Content-Type": "application/xml"}, body)

    async def test(store, faults, seen):
        faults.append(Fault(refuse, times=20))
        with pytest.raises(errors.PermissionDenied, match="the clocks of this host and the server differ too much"):
            await store.get_range("f", 0, 1)

    faulty(test)


@pytest.mark.parametrize(
    ("code", "status", "message", "said"),
    [
        ("InvalidObjectState", 403, "The operation is not valid for the object's storage class", "archived .Glacier."),
        ("AccessDenied", 403, "Access Denied because object protected by object lock.", "protected by object lock"),
        ("ExpiredToken", 400, "The provided token has expired.", "renew the credentials, no remount is needed"),
        ("PermanentRedirect", 301, "The bucket is elsewhere.", "another region; set region="),
    ],
)
def test_what_a_server_refuses_is_told_in_words_that_help(faulty, code, status, message, said):
    def refuse(handler, ask):
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        handler.answer(status, {"Content-Length": str(len(body)), "Content-Type": "application/xml"}, body)

    async def test(store, faults, seen):
        faults.append(Fault(refuse, times=20))
        with pytest.raises((errors.PermissionDenied, errors.BadConfiguration), match=said):
            await store.get_range("f", 0, 1)

    faulty(test)
