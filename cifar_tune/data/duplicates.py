"""Images that are in two parts of a data set, as copies: scores on them say too much.

Decoded pixels are compared, not files. So every layout is served, a part that was split off is too, and a copy may have
been saved in another format. No file is opened for it.
"""

import hashlib
from collections.abc import Sequence

from cifar_tune.data.images import Images


def warn_of_copies(held_out: Images, part: str, *seen: Images) -> str | None:
    """A sentence where images of a part, `validation` or `test`, are also among those `seen` before; None otherwise."""
    known = {key for images in seen for key in _keys(images)}
    num_copies = sum(key in known for key in _keys(held_out))
    if not num_copies:
        return None
    return (
        f"Warning: {num_copies:,} of {len(held_out):,} {part} images are in another part too, so scores on "
        f"them are flattered; remove the copies."
    )


def _keys(images: Images) -> Sequence[bytes]:
    """A hash of each image's pixels."""
    return [hashlib.blake2b(pixels.tobytes(), digest_size=16).digest() for pixels in images.images]
