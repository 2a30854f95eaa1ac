#!/usr/bin/env bash
# Ray prints its messages about workers on the driver's stdout, also with log_to_driver=False and logging_level="ERROR".
#
# Expected: with both set, a program's stdout holds its own lines only, so that its output can be piped; what Ray has to
# say goes to stderr or into its logs. Seen with ray 2.56.1 and 2.60.0, Python 3.11: the warning about a task that
# carries a large object is on stdout, in colour though it is no terminal, before the program's own line; stderr is empty.
# The errors of workers that cannot start, dozens of lines each, come the same way. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cd "$folder"
cat > program.py <<'PYTHON'
import time

import ray

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
large = bytes(20_000_000)
print(ray.get(ray.remote(lambda: len(large)).remote()))
time.sleep(3)  # the messages come through a thread
PYTHON
export RAY_USAGE_STATS_ENABLED=0
for version in 2.56.1 2.60.0; do
  venv/bin/pip install --quiet "ray==$version"
  venv/bin/python program.py > stdout 2> stderr
  echo "ray $version: $(wc -l < stdout) lines on stdout, $(wc -l < stderr) on stderr"
  cat stdout
  grep -q "(raylet).*Warning: The remote function .* is very large" stdout
  [ "$(tail -n 1 stdout)" = 20000000 ]
done
