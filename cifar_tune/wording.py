"""The formats of numbers in everything people read: shares, points, durations, sizes, costs, settings."""


def format_percent(share: float, digits: int = 2) -> str:
    """`86.40 %` for a share of 0.864."""
    return f"{100 * share:.{digits}f} %"


def format_score(score: str, share: float) -> str:
    """`86.40 %`, and `macro F1 86.40 %` of a score that is no accuracy."""
    return format_percent(share) if score == "accuracy" else f"{score_title(score)} {format_percent(share)}"


def score_title(score: str) -> str:
    """`macro F1`: a score's name in words."""
    return {"macro_f1": "macro F1"}.get(score, score.replace("_", " "))


def format_percent_range(low: float, high: float) -> str:
    """`85.10 to 87.70`, in per cent, for two shares."""
    return f"{100 * low:.2f} to {100 * high:.2f}"


def format_points(points: float) -> str:
    """`+1.20`: percentage points with their sign."""
    return f"{points:+.2f}"


def format_gain(mean: float, low: float, high: float) -> str:
    """`+1.20 points (+0.40 to +2.00)` for three differences of shares."""
    return f"{format_points(100 * mean)} points ({format_points_range(low, high)})"


def format_points_range(low: float, high: float) -> str:
    """`+0.40 to +2.00`, in percentage points, for two differences of shares."""
    return f"{format_points(100 * low)} to {format_points(100 * high)}"


def format_hours(seconds: float) -> str:
    """`90 seconds`, `45 minutes` or `3.2 hours`: in the unit that suits the duration."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:,.1f} hours"


def format_clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_seconds(seconds: float) -> str:
    """`12.3 s`."""
    return f"{seconds:,.1f} s"


def format_bytes(num_bytes: float) -> str:
    """`3.4 MiB`, or `1.2 GiB` from one GiB on."""
    mib = num_bytes / 2**20
    return f"{mib / 1024:,.1f} GiB" if mib >= 1024 else f"{mib:,.1f} MiB"


def format_cost(name: str, cost: float) -> str:
    """A cost by its column's name: `77,850 parameters`, `31.1 M multiply-adds`, `12.3 s`."""
    if name == "num_parameters":
        return f"{cost:,.0f} parameters"
    return f"{format_millions(cost)} multiply-adds" if name == "num_macs" else format_seconds(cost)


def format_millions(number: float) -> str:
    """`31.1 M`."""
    return f"{number / 1e6:,.1f} M"


def format_number(value: object) -> str:
    """A float to three significant digits, `0.00156`; anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_setting(name: str, value: object) -> str:
    """`optimizer/lr=0.00156`, to three significant digits."""
    return f"{name}={format_number(value)}"


def format_count(number: int, singular: str, plural: str | None = None) -> str:
    """`1 epoch`, `1,200 epochs`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
