"""Numbers as people read them: shares, counts, operations, times. What is not known is "-"."""

from __future__ import annotations


def percent(share: float | None) -> str:
    """A share from 0 to 1 in percent.

    Example:
        >>> percent(0.91234)
        '91.23 %'
    """
    return "-" if share is None else f"{100 * share:.2f} %"


def metric_value(metric: str, value: float | None) -> str:
    """A value of a metric: an accuracy in percent, others as numbers.

    Example:
        >>> metric_value("accuracy", 0.5), metric_value("loss", 0.5)
        ('50.00 %', '0.5000')
    """
    return percent(value) if metric == "accuracy" else number(value)


def size(num_bytes: int | None) -> str:
    """Bytes in kB or MB.

    Example:
        >>> size(312_345), size(44_900_000)
        ('312 kB', '44.9 MB')
    """
    if num_bytes is None:
        return "-"
    return f"{num_bytes / 1e3:.3g} kB" if num_bytes < 999_500 else f"{num_bytes / 1e6:.3g} MB"


def milliseconds(secs: float | None) -> str:
    """A short time.

    Example:
        >>> milliseconds(0.00234)
        '2.34 ms'
    """
    return "-" if secs is None else f"{1e3 * secs:.3g} ms"


def count(number_of_things: int | None) -> str:
    """A count with thousands separators.

    Example:
        >>> count(1260000)
        '1,260,000'
    """
    return "-" if number_of_things is None else f"{number_of_things:,}"


def number(value: float | None) -> str:
    """A number with four decimals.

    Example:
        >>> number(0.94923)
        '0.9492'
    """
    return "-" if value is None else f"{value:.4f}"


def operations(flops: float | None) -> str:
    """A number of operations in thousands (k), millions (M), billions (G) or trillions (T).

    Example:
        >>> operations(555_422_720), operations(999_999), operations(12)
        ('555 M', '1.00 M', '12')
    """
    if flops is None:
        return "-"
    if flops < 1000:
        return f"{flops:.0f}"
    for unit in ("k", "M", "G", "T"):
        flops /= 1000
        # 999.6 would be shown as 1000: it is one of the next unit.
        if flops < 999.5 or unit == "T":
            break
    decimals = 2 if flops < 9.995 else 1 if flops < 99.95 else 0
    return f"{flops:.{decimals}f} {unit}"


def duration(secs: float) -> str:
    """A time in seconds, minutes and seconds, or hours and minutes.

    Example:
        >>> duration(3.21), duration(90), duration(4000)
        ('3.2 s', '1 min 30 s', '1 h 07 min')
    """
    if secs < 59.95:
        return f"{secs:.1f} s"
    minutes, seconds = divmod(round(secs), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(round(secs / 60), 60)
    return f"{hours} h {minutes:02d} min"
