"""`python -m warpseek`: the command line."""

import sys

from warpseek._cli import main

if __name__ == "__main__":
    sys.exit(main())
