"""Reading the configuration: volgate.toml, then conf.d/*.toml by name, then the environment; flags come on top.

Whatever is wrong is said with file, line and section, and for an unknown key the nearest one that exists.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from volgate.config.settings import SETTINGS, Setting
from volgate.errors import BadConfiguration

ENVIRONMENT_PREFIX: Final = "VOLGATE_"
_KNOWN: Final = {setting.name: setting for setting in SETTINGS}


@attrs.frozen
class Value:
    """A setting's value, and where it comes from: ``FILE:LINE``, ``environment NAME``, a flag, or ``default``."""

    value: Any
    origin: str


@attrs.frozen
class Configuration:
    """All settings with their origins.

    Attributes:
        values: by ``section.key``; every known setting is there.
        files: the files that were read, in order.
    """

    values: Mapping[str, Value]
    files: tuple[Path, ...]

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value


def load(directory: Path, environment: Mapping[str, str]) -> Configuration:
    """Read all that a process of this user sees. Missing files are no error.

    Raises:
        BadConfiguration: one line with file, line, section and key.
    """
    values = {setting.name: Value(setting.default, "default") for setting in SETTINGS}
    try:
        files = [
            file for file in (directory / "volgate.toml", *sorted(directory.glob("conf.d/*.toml"))) if file.exists()
        ]
    except OSError as error:
        raise BadConfiguration(f"{error.filename} cannot be read: {error.strerror}") from error
    for file in files:
        values.update(_read_file(file))
    values.update(_read_environment(environment))
    return Configuration(values, tuple(files))


def _read_file(file: Path) -> dict[str, Value]:
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise BadConfiguration(f"{file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{file}: no valid TOML: {error}") from error
    found = {}
    for section, keys in document.items():
        if not isinstance(keys, dict):
            where = f"{file}:{_line(text, '', section)}"
            raise BadConfiguration(f"{where}: '{section}' stands outside a section; write it below one, as [mount]")
        if section not in {setting.section for setting in SETTINGS}:
            known = sorted({setting.section for setting in SETTINGS})
            where = f"{file}:{_line(text, section, None)}"
            raise BadConfiguration(f"{where}: unknown section [{section}]{_nearest(section, known)}")
        for key, value in keys.items():
            where = f"{file}:{_line(text, section, key)}"
            setting = _find(section, key, f"{where}: section [{section}]")
            found[setting.name] = Value(_parse(setting, value, f"{where}: section [{section}]"), where)
    return found


def _read_environment(environment: Mapping[str, str]) -> dict[str, Value]:
    found = {}
    for name, value in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue  # VOLGATE_TRACEBACK and its like are no settings
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        setting = _find(section, key, f"environment {name}")
        found[setting.name] = Value(_parse(setting, value, f"environment {name}"), f"environment {name}")
    return found


def _find(section: str, key: str, where: str) -> Setting:
    setting = _KNOWN.get(f"{section}.{key}")
    if setting is None:
        known = [setting.key for setting in SETTINGS if setting.section == section]
        raise BadConfiguration(f"{where}: unknown key '{key}'{_nearest(key, known)}")
    return setting


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean '{nearest[0]}'?" if nearest else f"; there are {', '.join(known)}" if known else ""


def _parse(setting: Setting, value: Any, where: str) -> Any:
    try:
        return setting.parse(value)
    except ValueError as error:
        raise BadConfiguration(f"{where}: {setting.key}: {error}") from error


def _line(text: str, section: str, key: str | None) -> int:
    """Return the line where a section, or a key of it, is written; 1 where it is written in a way not foreseen."""
    key_pattern = re.compile(rf"\s*[\"']?{re.escape(key or '')}[\"']?\s*=")
    outside = re.compile(rf"\s*{re.escape(section or key or '')}\b")
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        if header:
            current = header.group(1).strip("\"'")
            if key is None and current == section:
                return number
        elif (current == section and key is not None and key_pattern.match(line)) or (
            not current and outside.match(line)
        ):
            return number
    return 1
