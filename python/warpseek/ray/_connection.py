"""The connection to a Ray cluster, which must ask for a token."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from warpseek.errors import IndexIOError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

# Exit statuses of errors that may pass: of a device, and of files.
MAY_PASS = (4, 8)

# Attempts of a call that fails with one of them.
ATTEMPTS = 3

# Processes of a shard or a task, one after the other, after which a call is given up.
PROCESSES = 5

# Seconds between two looks at Ctrl+C.
TICK = 0.5

# Seconds in which a process answers that works.
PING = 10.0

# The first versions of Ray with token authentication by default: on one machine, and in clusters.
_TOKENS_LOCALLY = (2, 59)
_TOKENS = (2, 61)


def ray_module() -> ModuleType:
    """Ray, which is an extra of the package."""
    try:
        import ray
    except ImportError:
        message = "warpseek.ray needs Ray: pip install 'ray>=2.60'"
        raise UsageError(message) from None
    return ray


def _has_token(version: str, is_local: bool) -> bool:
    """True if Ray asks for a token."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode:
        return mode != "disabled"
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major, minor) >= (_TOKENS_LOCALLY if is_local else _TOKENS)


def connect(address: str | None, insecure: bool) -> bool:
    """Connects to a cluster; without an address, and without ``RAY_ADDRESS``, starts one.

    Returns False if this process is connected already.
    """
    ray = ray_module()
    address = address or os.environ.get("RAY_ADDRESS")
    is_local = address in (None, "local")
    refused = UsageError(
        "this Ray cluster would take programs from anyone who reaches its ports: set "
        "RAY_AUTH_MODE=token on every machine and here before Ray starts (`ray get-auth-token "
        "--generate` makes the token), or accept that with insecure=True (--insecure)"
    )
    if not insecure and not _has_token(ray.__version__, is_local):
        raise refused
    is_new = not ray.is_initialized()
    if is_new:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise IndexIOError(f"Ray cluster {address or ''}: {error}", exit_code=8) from None
    elif address not in (None, "auto", "local", ray.get_runtime_context().gcs_address):
        here = ray.get_runtime_context().gcs_address
        raise UsageError(f"this process is connected to the Ray cluster {here}, not {address}")
    # A client that has a token is also let in where none is asked for.
    if not insecure and not _asks_for_token(ray.get_runtime_context().gcs_address):
        if is_new:
            ray.shutdown()
        raise refused
    return is_new


# Prints `refused` if a client without a token is not let in.
_PROBE = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1])
except AuthenticationError:
    print("refused")
"""


def _asks_for_token(address: str) -> bool:
    """True if the cluster refuses a client without a token."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-c", _PROBE, address]
    try:
        found = subprocess.run(
            command,
            env={**known, "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PING,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.stdout.strip() == b"refused"


def disconnect(is_own: bool) -> None:
    """Ends the connection if `connect` made it, and a cluster that was started for it."""
    if is_own:
        ray_module().shutdown()
