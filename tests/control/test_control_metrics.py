"""One /metrics for the host: well formed whatever the mounts say, and no mount that hangs keeps the others' away."""

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mounting import mounted, wait_until
from volgate.control.exposition import Exposition
from volgate.errors import InvalidArgument


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def series(text):
    return [(s.name, tuple(sorted(s.labels.items()))) for family in families(text).values() for s in family.samples]


def scrape(api):
    answer = api.ask("GET", "/metrics")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.content.decode()


def test_all_mounts_are_in_one_exposition_that_has_each_family_once(api, place):
    with mounted(place, name="one") as one, mounted(place, name="two") as two:
        with mounted(place, "--read-only", name="reading", source=f"{place}/one.data") as reading:
            (one.path / "file").write_bytes(b"x" * 123)
            text = scrape(api)
            pids = {f"{one.volume_id()}": one.process.pid, f"{two.volume_id()}": two.process.pid}
            for keyword in ("HELP", "TYPE"):
                names = re.findall(rf"^# {keyword} (\S+)", text, re.MULTILINE)
                assert len(names) == len(set(names))
            assert len(series(text)) == len(set(series(text)))
            found = families(text)
            used = {
                (s.labels["volume"], s.labels.get("reader")): s.value for s in found["volgate_quota_used_bytes"].samples
            }
            assert used[one.volume_id(), None] == 123 and used[two.volume_id(), None] == 0
            assert (one.volume_id(), str(reading.process.pid)) in used
            up = {(s.labels["volume"], s.labels["reader"]): s.value for s in found["volgate_control_scrape_up"].samples}
            assert [up[volume, ""] for volume in pids] == [1, 1]
    assert "volgate_control_build_info" in text and 'route="/metrics"' in scrape(api)


def test_a_mount_that_hangs_costs_only_its_own_series_and_is_told(api, place):
    with mounted(place, name="well") as well, mounted(place, name="hung") as hung:
        volumes = well.volume_id(), hung.volume_id()
        os.kill(hung.process.pid, signal.SIGSTOP)
        try:
            found = families(scrape(api))
        finally:
            os.kill(hung.process.pid, signal.SIGCONT)
        up = {s.labels["volume"]: s.value for s in found["volgate_control_scrape_up"].samples}
        assert (up[volumes[0]], up[volumes[1]]) == (1, 0)
        ready = {s.labels["volume"] for s in found["volgate_ready"].samples}
        assert volumes[0] in ready and volumes[1] not in ready
        wait_until(lambda: hung.status()["state"] == "ready")


@contextlib.contextmanager
def talking(path, said):
    """Let somebody answer one question at a socket with these bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"

    def answer():
        with contextlib.suppress(TimeoutError):
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(head % len(said) + said)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fsencode(path))
        listener.listen()
        listener.settimeout(10)
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            thread.join()
            path.unlink()


@pytest.mark.parametrize(
    "said",
    [b"# TYPE volgate_ready gauge\nvolgate_ready{volume=\"x\n", b"volgate_ready 1\n", b"\xff\n", b"{}", b"",
     b"# TYPE volgate_quota_used_bytes counter\nvolgate_quota_used_bytes 1\n",
     b"# TYPE volgate_control_scrape_up counter\nvolgate_control_scrape_up 1\n",
     b"# TYPE a gauge\na{b=\"1\"} 1\na{b=\"1\"} 2\n"],
)  # fmt: skip
def test_a_mount_that_talks_nonsense_costs_only_its_own_series(api, place, said):
    name = f"zz-nonsense-{os.getpid()}"
    with mounted(place) as mount:
        with talking(Path(f"/run/volgate/{name}.sock"), said):
            found = families(scrape(api))
        up = {s.labels["volume"]: s.value for s in found["volgate_control_scrape_up"].samples}
        assert up[mount.volume_id()] == 1 and up[name] == (1 if said == b"" else 0)
        assert mount.volume_id() in {s.labels["volume"] for s in found["volgate_ready"].samples}


@pytest.fixture
def folder_of_user():
    """Return where the sockets of another user's mounts lie."""
    folder = Path("/run/user/4242424242")
    yield folder / "volgate"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("type_", [b"gauge", b"counter"])
def test_another_user_cannot_speak_for_a_mount_or_silence_it(api, place, folder_of_user, type_):
    with mounted(place) as mount:
        name = mount.volume_id()
        said = b'# TYPE volgate_ready %s\nvolgate_ready{volume="%s"} 0\n' % (type_, name.encode())
        with talking(folder_of_user / f"{name}.sock", said), talking(folder_of_user / "\udcff.sock", said):
            text = scrape(api)
        assert len(series(text)) == len(set(series(text)))
        found = families(text)
        ready = {s.labels.get("user"): s.value for s in found["volgate_ready"].samples if s.labels["volume"] == name}
        assert ready == ({None: 1} if type_ == b"counter" else {None: 1, "4242424242": 0})


def test_a_label_of_ours_is_nobody_elses():
    with pytest.raises(InvalidArgument, match="has a label twice, or one that is not its own"):
        Exposition().add('# TYPE a gauge\na{user="1"} 1\n', {"user": "2"})


names = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
values = st.text(max_size=10)


def escape(value):
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@st.composite
def expositions(draw):
    text = ""
    for name in draw(st.lists(st.sampled_from(["a", "b_bytes", "c:d"]), unique=True)):
        text += f"# HELP {name} Words.\n# TYPE {name} gauge\n"
        for label in draw(st.lists(values, unique=True, max_size=4)):
            text += (
                f'{name}{{l="{escape(label)}"}} {draw(st.integers(-5, 5) | st.sampled_from(["+Inf", "NaN", 1e-9]))}\n'
            )
    return text


@given(st.lists(expositions(), max_size=4))
def test_joining_keeps_every_sample_and_gives_each_family_one_head(texts):
    joined, expected = Exposition(), 0
    for number, text in enumerate(texts):
        joined.add(text, {"mount": str(number)})
        expected += sum(line[:1] not in ("#", "") for line in text.split("\n"))
    text = joined.render().decode()
    found = families(text)
    assert sum(len(family.samples) for family in found.values()) == expected
    assert len(re.findall("^# TYPE", text, re.MULTILINE)) == len(found)
    assert all("mount" in sample.labels for family in found.values() for sample in family.samples)


@given(st.text() | st.text(alphabet='# TYPEHLa{}="\n1 gauge', max_size=80))
def test_nonsense_is_refused_or_well_formed(text):
    joined = Exposition()
    try:
        joined.add(text)
    except InvalidArgument:
        assert joined.render() == b""
    else:
        families(joined.render().decode())
