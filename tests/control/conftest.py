"""Fixtures of the control daemon."""

import pytest

import controlling


@pytest.fixture(scope="module")
def api(module_place):
    """Return a control daemon that the tests of a module share."""
    with controlling.serving(module_place) as api:
        yield api


@pytest.fixture
def name():
    """Return a name for a volume; what is left of it is taken away."""
    name = controlling.new_name()
    yield name
    controlling.forget(name)


@pytest.fixture
def made(api, place, name):
    """Return the name of a volume that was made, with a mount point, and is not mounted."""
    (place / "data").mkdir()
    body = {"volume_id": name, "source": f"{place}/data", "mount_point": f"{place}/mnt", "quota_bytes": 1 << 20}
    api.ok("POST", "/v1/volumes", body)
    return name


@pytest.fixture
def mounted_name(api, made):
    """Return the name of a mounted volume."""
    api.ok("POST", f"/v1/volumes/{made}/mount")
    return made
