#!/usr/bin/env bash
# torchvision's ToDtype(torch.uint8, scale=True) makes white black, where the images are float16 or bfloat16.
#
# Expected: 1.0 becomes 255, as it does for float32 and float64. Seen with torchvision 0.29.1 and 0.29.2, torch 2.14.1
# and 2.15.0, Python 3.11: the factor 255.999 is 256 in these types, so 1.0 becomes 256, which wraps to 0 in silence.
# The transforms of version 1 (`convert_image_dtype`) do the same; `save_image` gives 255. Convert such images to
# float32 first. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.4.4
cat > "$folder/program.py" <<'PYTHON'
import torch
from torchvision.transforms import functional, v2

to_uint8 = v2.ToDtype(torch.uint8, scale=True)
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    pixels = torch.tensor([0.0, 0.5, 1.0], dtype=dtype).expand(3, 1, 3)
    old = functional.convert_image_dtype(pixels, torch.uint8)
    print(dtype, to_uint8(pixels)[0, 0].tolist(), old[0, 0].tolist())
PYTHON
"$folder/venv/bin/python" "$folder/program.py" | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
torch.float64 [0, 127, 255] [0, 127, 255]
torch.float32 [0, 127, 255] [0, 127, 255]
torch.float16 [0, 128, 0] [0, 128, 0]
torch.bfloat16 [0, 128, 0] [0, 128, 0]
TEXT
