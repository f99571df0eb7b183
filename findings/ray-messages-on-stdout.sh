#!/bin/sh
# Ray 2.60.0: messages about lost processes are printed on the stdout of the program that connected,
# also with log_to_driver=False and logging_level="ERROR".
#
# Guess: with log_to_driver=False nothing of Ray's comes to stdout, so that a program can write its
# own output there; what Ray has to say is on stderr.
#
# Observed: a task whose process is killed and that is tried again leaves lines on stdout that begin
# with "(raylet)", in colours, even if stdout is a file.
#
#     result: 7
#     lines of Ray's on stdout: some
#     lines of Ray's on stderr: none
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cat > "$folder/run.py" <<'PYTHON'
import os
import secrets
import signal
import sys
import time

os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))
import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote(max_retries=2)
def once(path):
    """Ends its own process the first time."""
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


print("result:", ray.get(once.remote(sys.argv[1])))
time.sleep(5)
ray.shutdown()
PYTHON
env -u RAY_AUTH_MODE -u RAY_AUTH_TOKEN -u RAY_ADDRESS \
    "$folder/venv/bin/python" "$folder/run.py" "$folder/mark" > "$folder/out" 2> "$folder/err"
some() { if grep -q raylet "$1"; then echo some; else echo none; fi; }
{
    grep result "$folder/out"
    echo "lines of Ray's on stdout: $(some "$folder/out")"
    echo "lines of Ray's on stderr: $(some "$folder/err")"
} > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
result: 7
lines of Ray's on stdout: some
lines of Ray's on stderr: none
TEXT
cmp "$folder/seen" "$folder/expected"
