#!/usr/bin/env bash
# safetensors' save_file makes files that their owner alone may read (mode 600), whatever the umask is.
#
# Expected: the mode of any new file, as with numpy.save: 644 under umask 022, so that colleagues who share a folder of
# weights can read them. Seen with safetensors 0.8.0 (and numpy 2.4.4): 600, while numpy.save gives 644. A file that is
# there already is replaced and gets 600 too.
# Whoever shares weights has to set the mode after saving. Fails if any of this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.4
cd "$folder"
umask 022
venv/bin/python - <<'PYTHON'
import os
import safetensors
import numpy as np
from safetensors.numpy import save_file

np.save("array.npy", np.zeros(3))
save_file({"weights": np.zeros(3)}, "new.safetensors")
with open("old.safetensors", "wb"):
    pass
save_file({"weights": np.zeros(3)}, "old.safetensors")
modes = {name: oct(os.stat(name).st_mode & 0o777) for name in ("array.npy", "new.safetensors", "old.safetensors")}
print("safetensors", safetensors.__version__, "numpy", np.__version__, modes)
assert modes == {"array.npy": "0o644", "new.safetensors": "0o600", "old.safetensors": "0o600"}, modes
PYTHON
