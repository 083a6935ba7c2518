"""The configuration: files, environment, and what is said when something is wrong."""

import pytest

from volgate.config.loading import load
from volgate.config.settings import SETTINGS
from volgate.errors import BadConfiguration


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "conf.d").mkdir()
    return tmp_path


def test_without_files_defaults_hold(directory):
    configuration = load(directory, {})
    assert {name: value.origin for name, value in configuration.values.items()} == {
        setting.name: "default" for setting in SETTINGS
    }
    assert configuration["mount.attr_timeout"] == 60.0


def test_later_files_and_then_the_environment_win_and_origins_are_known(directory):
    (directory / "volgate.toml").write_text(
        '[mount]\nattr_timeout = 5\nstop_deadline = "2min"\n[log]\nlevel = "debug"\n'
    )
    (directory / "conf.d" / "20-b.toml").write_text("[mount]\nattr_timeout = 7\n")
    (directory / "conf.d" / "10-a.toml").write_text("[mount]\nattr_timeout = 6\n")
    configuration = load(directory, {"VOLGATE_LOG__LEVEL": "error", "VOLGATE_TRACEBACK": "1", "HOME": "/"})
    assert configuration["mount.attr_timeout"] == 7
    assert configuration["mount.stop_deadline"] == 120
    assert configuration.values["mount.attr_timeout"].origin == f"{directory}/conf.d/20-b.toml:2"
    assert configuration.values["log.level"].origin == "environment VOLGATE_LOG__LEVEL"
    assert [file.name for file in configuration.files] == ["volgate.toml", "10-a.toml", "20-b.toml"]


def test_a_list_of_texts_is_one_in_a_file_and_words_in_the_environment(directory):
    (directory / "volgate.toml").write_text('[control]\nroles = ["ann=owner:projects", "bob=reader:*"]\n')
    expected = ("ann=owner:projects", "bob=reader:*")
    assert load(directory, {})["control.roles"] == expected
    assert load(directory, {"VOLGATE_CONTROL__ROLES": "carl=admin:*"})["control.roles"] == ("carl=admin:*",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[mount]\n\nattr_timout = 5", ":3: section [mount]: unknown key 'attr_timout'; did you mean 'attr_timeout'?"),
        ("[mounts]\nattr_timeout = 5", ":1: unknown section [mounts]; did you mean 'mount'?"),
        ("[mount]\nattr_timeout = '10GiBB'", ":2: section [mount]: attr_timeout: '10GiBB' is no duration"),
        ("[mount]\nattr_timeout = true", "attr_timeout: True is no duration"),
        ("[mount]\nattr_timeout = -1", "'-1' is no duration"),
        ("[s3]\nregion = 1", ":2: section [s3]: region: 1 is no region"),
        ("[s3]\naddressing = 'dns'", "none of auto, path, virtual"),
        ("[s3]\nsecret_access_key = 'canary'", ":2: section [s3]: unknown key 'secret_access_key'"),
        ("[log]\nformat = 'xml'", ":2: section [log]: format: 'xml' is none of text, json"),
        ("[metrics]\nlisten = '9478'", "no address such as 127.0.0.1:9478"),
        ("[metrics]\nlisten = 9478", "no address such as 127.0.0.1:9478"),
        ("[control]\nroles = [1]", "[1] is no list of texts"),
        ("[control]\njwt_algorithm = 'none'", "'none' is none of EdDSA, ES256, RS256, HS256"),
        ("attr_timeout = 5", ":1: 'attr_timeout' stands outside a section"),
        ("[mount\n", "no valid TOML"),
        ("\xff", "no valid TOML"),
        ("[mount]\nattr_timeout = 1\nattr_timeout = 2", "no valid TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(directory, text, says):
    (directory / "volgate.toml").write_text(text, encoding="latin-1")
    with pytest.raises(BadConfiguration) as error:
        load(directory, {})
    assert says in str(error.value) and str(directory) in str(error.value)
    assert "canary" not in str(error.value)


def test_a_wrong_variable_is_named(directory):
    with pytest.raises(BadConfiguration, match=r"VOLGATE_MOUNT__ATTR_TIMOUT.*did you mean 'attr_timeout'"):
        load(directory, {"VOLGATE_MOUNT__ATTR_TIMOUT": "5"})


def test_an_unreadable_file_is_named(directory):
    (directory / "volgate.toml").mkdir()
    with pytest.raises(BadConfiguration, match=r"volgate.toml cannot be read"):
        load(directory, {})
