"""`python -m warpseek`: the command line."""

import sys

from warpseek._cli import main

sys.exit(main())
