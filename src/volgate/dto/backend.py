"""The names of storage backends.

``BackendType`` is one alias for all who carry such a name. The built-in names are those below; a driver registered
under the entry point group ``volgate.drivers`` adds its own, hence ``str`` and not a Literal.
"""

from typing import Final, TypeAlias

BackendType: TypeAlias = str

BUILTIN_BACKEND_TYPES: Final[frozenset[BackendType]] = frozenset({"posix", "s3", "ceph", "hammerspace", "memory"})
