"""`python -m robolearn.cli`, the same as `robolearn`."""

import sys

from robolearn.cli import main

sys.exit(main())
