"""``python -m volgate``."""

import sys

from volgate.cli import main

sys.exit(main())
