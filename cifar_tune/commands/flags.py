"""The values of flags that have a form of their own: FIELD=VALUE and lengths of time."""

import re
from collections.abc import Sequence

from cifar_tune.errors import UserError


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    """The values of `--set` by field, each given as FIELD=VALUE."""
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"--set {pair}: write FIELD=VALUE, such as --set optimizer/lr=0.02.")
    return dict(pair.split("=", 1) for pair in pairs)


def parse_time_budget(text: str | None) -> float | None:
    """The seconds of `90s`, `30m`, `2h` or `1h30m`; None where there is no budget."""
    if text is None:
        return None
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    hours, minutes, seconds = (int(part or 0) for part in parts.groups()) if parts else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        raise UserError(f"--time-budget {text}: write a time such as 90s, 30m or 1h30m.")
    return float(total)
