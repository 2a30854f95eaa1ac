#!/usr/bin/env bash
# class_encode_column of `datasets` renumbers labels that are whole numbers already: it sorts them as text.
#
# Expected: labels 0 to 11 stay 0 to 11, with the names "0" to "11". Seen with datasets 5.2.0, Python 3.11: 10 and 11
# come before 2, so the label 2 becomes 4. With ten classes or fewer nothing changes. A Parquet file of the result holds
# the new numbers, and the old ones only as names in the schema's metadata. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0
cat > "$folder/program.py" <<'PYTHON'
from datasets import Dataset, disable_progress_bars

disable_progress_bars()
for number in (10, 12):
    dataset = Dataset.from_dict({"label": list(range(number))}).class_encode_column("label")
    print(list(dataset["label"]), dataset.features["label"].names)
PYTHON
export HF_HUB_OFFLINE=1 HF_HOME="$folder"
"$folder/venv/bin/python" "$folder/program.py" | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
[0, 1, 2, 3, 4, 5, 6, 7, 8, 9] ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
[0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3] ['0', '1', '10', '11', '2', '3', '4', '5', '6', '7', '8', '9']
TEXT
