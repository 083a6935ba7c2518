"""The alert rules and the dashboard fit what a mount really exposes."""

import http.client
import json
import re
import socket
import subprocess

import pytest

import mounting
import s3_server
from box import REPOSITORY

MONITORING = REPOSITORY / "tools/monitoring"
KEYWORDS = {"volgate_build_info"}


@pytest.fixture(scope="module")
def exposed(module_place):
    """Return what a mount of a bucket with limits exposes: all that any mount does."""
    mnt, cache = module_place / "mnt", module_place / "cache"
    mnt.mkdir()
    with s3_server.running(module_place / "s3") as server:
        server.make_bucket("bucket")
        options = ("--quota", "1MiB", "--inodes", "10", "-o", f"cache_dir={cache}")
        mount = mounting.start("s3://bucket", mnt, *options, environment=server.environment)
        try:
            (mount.path / "f").write_text("x")
            assert not (mount.path / "missing").exists()
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(f"/run/volgate/{mount.volume_id()}.sock")
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            connection.close()
        finally:
            assert mount.stop() == 0
    return text


def names_in(text):
    return set(re.findall(r"\bvolgate_[a-z_]+", text)) - KEYWORDS


def test_the_exposition_is_well_formed(exposed):
    done = subprocess.run(["promtool", "check", "metrics"], input=exposed, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout


def test_the_alert_rules_are_valid_and_fire_when_they_should():
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout


def test_every_metric_that_rules_and_dashboard_name_exists(exposed):
    there = names_in(exposed)
    for file in ("alerts.yml", "grafana.json"):
        assert names_in((MONITORING / file).read_text()) <= there, file


def test_every_expression_of_the_dashboard_is_valid(tmp_path):
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 5
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"x:{n}", "expr": expression.replace("$__rate_interval", "5m").replace("$volume", ".*")}
        for n, expression in enumerate(expressions)
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr + done.stdout
