#!/usr/bin/env bash
# A package of AOTInductor takes every batch for one with the strides of its example, and computes with other numbers.
#
# Expected: a batch of the right shape and type gives the same sums however it lies in memory, or a message. In eager
# mode, in the exported program and under torch.compile it does. Seen with torch 2.13.0 and 2.15.0, Python 3.11, on a
# CPU: two batches give other sums in silence. One is the same batch in channels-last memory, the other every second
# image of a larger batch. Pictures of Pillow and numpy, permuted to (n, 3, H, W), lie in channels-last memory. Call
# `.contiguous()` before such a package. The script needs a C++ compiler. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.4 setuptools==82.0.1
cd "$folder"
cat > program.py <<'PYTHON'
import torch


class Sums(torch.nn.Module):
    def forward(self, images):
        return images.sum(dim=(2, 3))


program = torch.export.export(Sums(), (torch.zeros(2, 3, 4, 4),))
path = torch._inductor.aoti_compile_and_package(program, package_path="sums.pt2")
package = torch._inductor.aoti_load_package(path)
images = torch.arange(4 * 3 * 4 * 4, dtype=torch.float32).view(4, 3, 4, 4)
batches = {
    "contiguous": images[:2],
    "channels last": images[:2].contiguous(memory_format=torch.channels_last),
    "every second": images[::2],
}
for name, batch in batches.items():
    print(name, "program", program.module()(batch).int().tolist(), "package", package(batch).int().tolist())
PYTHON
export TORCHINDUCTOR_CACHE_DIR="$folder/cache"
venv/bin/python program.py 2> messages | tee output || { cat messages >&2; exit 1; }
diff output - <<'TEXT'
contiguous program [[120, 376, 632], [888, 1144, 1400]] package [[120, 376, 632], [888, 1144, 1400]]
channels last program [[120, 376, 632], [888, 1144, 1400]] package [[275, 376, 477], [1043, 1144, 1245]]
every second program [[120, 376, 632], [1656, 1912, 2168]] package [[120, 376, 632], [888, 1144, 1400]]
TEXT
