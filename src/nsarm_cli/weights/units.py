"""Sizes as people read them."""

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def format_bytes(count: int) -> str:
    """Write a number of bytes with three digits: 999 bytes, 1.22 GB, 33.5 GB."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    if unit == 0:
        return f"{count} {_UNITS[0]}"
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f} {_UNITS[unit]}"
