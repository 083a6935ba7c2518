"""The catalog of volumes: kept, refused when newer, made again from the volumes themselves."""

import sqlite3

import pytest

from volgate.errors import AlreadyExists, InputOutput, NotFound, Unsupported
from volgate.volume.catalog import Catalog, CatalogEntry

ENTRY = CatalogEntry("projects", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "/srv/projects", "/mnt/projects", "ro")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "catalog.db"


def test_what_is_added_is_found_by_every_process_until_it_is_removed(path):
    Catalog(path).add(ENTRY)
    assert Catalog(path).find("projects") == ENTRY
    assert Catalog(path).list() == [ENTRY]
    Catalog(path).remove("projects")
    assert Catalog(path).list() == []


def test_looking_makes_no_file(path):
    assert Catalog(path).list() == []
    with pytest.raises(NotFound, match=r"'\./projects'"):
        Catalog(path).find("projects")
    assert not path.exists()


def test_a_name_and_a_volume_are_entered_once(path):
    Catalog(path).add(ENTRY)
    for twin in (CatalogEntry("projects", "other", "/x"), CatalogEntry("other", ENTRY.uuid, "/x")):
        with pytest.raises(AlreadyExists):
            Catalog(path).add(twin)
    assert Catalog(path).list() == [ENTRY]


def test_a_newer_format_is_refused_and_left_alone(path):
    Catalog(path).add(ENTRY)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(Unsupported, match="upgrade volgate"):
        Catalog(path).list()
    with pytest.raises(Unsupported):
        Catalog(path).add(CatalogEntry("other", "x", "/x"))


def test_a_damaged_catalog_says_how_to_make_it_anew(path):
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(InputOutput, match="volgate volume adopt"):
        Catalog(path).list()
