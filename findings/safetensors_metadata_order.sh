#!/usr/bin/env bash
# safetensors' save_file writes the entries of its metadata in another order each time: equal contents differ in bytes.
#
# Expected: the same tensors with the same metadata give the same file, so that a hash of the file says whether the
# contents are the same. Without metadata they do. Seen with safetensors 0.8.0, numpy 2.4.4, Python 3.11: eight saves of
# one dict with eight entries give several files, in one process; with one entry they give one. A hash of the contents
# has to be taken of the tensors. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.4
cat > "$folder/program.py" <<'PYTHON'
import hashlib

import numpy as np
from safetensors.numpy import save

tensors = {"weight": np.zeros(3), "bias": np.ones(2)}
for number in (0, 1, 8):
    metadata = {f"key{i}": "value" for i in range(number)}
    files = {hashlib.sha256(save(tensors, metadata=metadata)).hexdigest() for _ in range(8)}
    print(number, "entries:", "one file" if len(files) == 1 else "several files")
PYTHON
"$folder/venv/bin/python" "$folder/program.py" | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
0 entries: one file
1 entries: one file
8 entries: several files
TEXT
