#!/usr/bin/env bash
# The transparent value of a PNG file (tRNS) has no effect in Pillow where the file's samples have 2, 4 or 16 bits.
#
# Expected: pixels of that value are transparent, as the PNG specification says for every bit depth. In Pillow they are
# with 1 and 8 bits. Seen with pillow 12.2.0 and 13.0.0, Python 3.11: pixels become 8-bit values, but the transparent
# value stays in the file's own scale, and the two no longer match. At 4 bits the value 5 becomes the pixel 85, and
# `info` says 5. Black matches, since 0 is 0 in every scale. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==12.2.0
cat > "$folder/program.py" <<'PYTHON'
import io
import struct
import zlib

from PIL import Image

GRAY, RGB = 0, 2


def png(bits, kind, row, transparent):
    """A PNG file of one row with 8 pixels, one value of which is transparent."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 8, 1, bits, kind, 0, 0, 0),
        b"tRNS": transparent,
        b"IDAT": zlib.compress(b"\0" + row),
        b"IEND": b"",
    }
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


color = struct.pack(">HHH", 0x1122, 0x3344, 0x5566)
files = {
    "gray, 2 bits": png(2, GRAY, bytes([0b01010101] * 2), struct.pack(">H", 1)),
    "gray, 4 bits": png(4, GRAY, bytes([0x55] * 4), struct.pack(">H", 5)),
    "gray, 8 bits": png(8, GRAY, bytes([0x55] * 8), struct.pack(">H", 0x55)),
    "RGB, 8 bits": png(8, RGB, bytes([0x11, 0x22, 0x33] * 8), struct.pack(">HHH", 0x11, 0x22, 0x33)),
    "RGB, 16 bits": png(16, RGB, color * 8, color),
}
for name, file in files.items():
    image = Image.open(io.BytesIO(file))
    print(name, image.mode, image.getpixel((0, 0)), image.info["transparency"], image.convert("RGBA").getpixel((0, 0)))
PYTHON
"$folder/venv/bin/python" "$folder/program.py" | tee "$folder/output"
diff "$folder/output" - <<'TEXT'
gray, 2 bits L 85 1 (85, 85, 85, 255)
gray, 4 bits L 85 5 (85, 85, 85, 255)
gray, 8 bits L 85 85 (85, 85, 85, 0)
RGB, 8 bits RGB (17, 34, 51) (17, 34, 51) (17, 34, 51, 0)
RGB, 16 bits RGB (17, 51, 85) (4386, 13124, 21862) (17, 51, 85, 255)
TEXT
