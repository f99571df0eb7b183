"""Sends a running server requests that its API description allows, and others: `fuzz.py URL`."""

import subprocess
import sys
from pathlib import Path

url = sys.argv[1]
checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance"
tool = Path(sys.executable).with_name("schemathesis")
run = subprocess.run([tool, "run", f"{url}/api-docs/openapi.json", "--checks", checks, "--max-examples", "25", "--phases", "examples,coverage,fuzzing",
                      "--request-timeout", "60", "--seed", "1", "--no-color"], capture_output=True, text=True)
print(run.stdout[-8000:], run.stderr[-2000:])
sys.exit(run.returncode)
