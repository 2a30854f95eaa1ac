#!/usr/bin/env bash
# On a CPU, torch's fused SGD and Adam pair a parameter's elements with those of a gradient by their place in memory.
#
# Expected: element by element, as the unfused optimizers do; with `fused=True` the same numbers, only faster. Seen with
# torch 2.13.0 and 2.15.0, Python 3.11: a channels-last weight with a contiguous gradient moves at other places than
# those where the gradient is one, in silence. So does a weight whose moments were loaded as contiguous tensors, such as
# a file format without strides gives. Backward passes make gradients that lie as their parameters. Fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.4
cat > "$folder/program.py" <<'PYTHON'
import torch

gradient = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 2, 1, 2)  # the first channel is 1, the second 0
for kind in (torch.optim.SGD, torch.optim.Adam):
    for fused in (False, True):
        weight = torch.nn.Parameter(torch.zeros(1, 2, 1, 2).contiguous(memory_format=torch.channels_last))
        weight.grad = gradient.clone()
        kind([weight], lr=1.0, fused=fused).step()
        print(kind.__name__, "fused" if fused else "unfused", [round(x) for x in weight.flatten().tolist()])

for fused in (False, True):
    weight = torch.nn.Parameter(torch.zeros(1, 2, 1, 2).contiguous(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=1.0, fused=fused)
    state = optimizer.state_dict()
    state["state"] = {0: {"momentum_buffer": gradient.clone()}}
    optimizer.load_state_dict(state)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    print("SGD, loaded moments", "fused" if fused else "unfused", [round(x) for x in weight.flatten().tolist()])
PYTHON
"$folder/venv/bin/python" "$folder/program.py" | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
SGD unfused [-1, -1, 0, 0]
SGD fused [-1, 0, -1, 0]
Adam unfused [-1, -1, 0, 0]
Adam fused [-1, 0, -1, 0]
SGD, loaded moments unfused [-1, -1, 0, 0]
SGD, loaded moments fused [-1, 0, -1, 0]
TEXT
