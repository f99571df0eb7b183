#!/bin/sh
# Ray 2.60.0: the variable that turns token authentication on counts when Ray is imported, for the
# processes that it starts when they start.
#
# Guess: RAY_AUTH_MODE=token, set in os.environ before ray.init, is the mode of a local cluster, as
# other settings in the environment are.
#
# Observed: after `import ray` the importing process keeps the mode that it found. The processes of
# the cluster inherit the variable, ask for a token, and refuse the process that started them: init
# fails after twenty attempts, with the message that the mode is `disabled`. Set before the import,
# it works.
#
#     before the import: 42
#     after the import: RuntimeError, mode 'disabled'
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cat > "$folder/run.py" <<'PYTHON'
import os
import re
import secrets
import sys

if sys.argv[1] == "before":
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))
import ray

os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
os.environ["RAY_AUTH_MODE"] = "token"
try:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    print(f"{sys.argv[1]} the import: {ray.get(ray.remote(lambda: 6 * 7).remote())}")
except RuntimeError as error:
    mode = re.search("RAY_AUTH_MODE is currently ('[a-z]+')", str(error))
    print(f"{sys.argv[1]} the import: RuntimeError, mode {mode[1] if mode else None}")
PYTHON
for moment in before after; do
    env -u RAY_AUTH_MODE -u RAY_AUTH_TOKEN -u RAY_ADDRESS \
        "$folder/venv/bin/python" "$folder/run.py" "$moment" 2> "$folder/log"
done > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
before the import: 42
after the import: RuntimeError, mode 'disabled'
TEXT
cmp "$folder/seen" "$folder/expected"
