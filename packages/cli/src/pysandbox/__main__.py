"""`python -m pysandbox` is the `pysandbox` command."""

import sys

from pysandbox.command import main

sys.exit(main())
