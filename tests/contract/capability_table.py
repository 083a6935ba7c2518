"""The table of capabilities in drivers/README.md: one column a driver, from backends that are open."""

import attrs

from volgate.drivers.base import Capabilities

NAMES = [field.name for field in attrs.fields(Capabilities)]


def render(capabilities: dict[str, Capabilities]) -> str:
    """Return the table, a row for each capability."""
    rows = [["", *capabilities], ["---"] * (len(capabilities) + 1)]
    rows += [[name, *(_cell(getattr(found, name)) for found in capabilities.values())] for name in NAMES]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, frozenset):
        return ", ".join(f"`{name.decode()}`" for name in sorted(value)) or "none"
    return str(value)
