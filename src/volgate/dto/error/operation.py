"""What is reported of a failed storage operation."""

from __future__ import annotations

import attrs

from volgate.dto.backend import BackendType
from volgate.dto.validation import check_text


@attrs.frozen
class StorageOperationError:
    """Where and how an operation failed: a value that exceptions carry, hence no exception itself.

    Attributes:
        operation: the call that failed (``write``, ``rename``, ``count`` ...).
        volume_id: the volume.
        path: from the volume's root.
        backend_type: name of the driver.
        error_message: one line for people.
        error_code: a vendor's code or an errno's name, None where there is none.
    """

    operation: str = attrs.field(validator=check_text)
    volume_id: str
    path: str
    backend_type: BackendType
    error_message: str
    error_code: str | None = None
