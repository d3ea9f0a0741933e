"""Numbers as people read them, at the edges where a unit or a digit changes."""

import pytest

from esnac_tf import quantities


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (None, "-"),
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (9994, "9.99 k"),
        (9996, "10.0 k"),
        (99_960, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (37_140_000, "37.1 M"),
        (2.5e15, "2500 T"),
    ],
)
def test_operations_have_three_digits_and_a_unit(flops, text):
    assert quantities.operations(flops) == text


@pytest.mark.parametrize(
    ("secs", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (3600 * 26 + 61, "26 h 01 min"),
    ],
)
def test_durations_have_no_sixty_seconds(secs, text):
    assert quantities.duration(secs) == text


@pytest.mark.parametrize(
    ("tell", "value", "text"),
    [
        (quantities.percent, 0.91237, "91.24 %"),
        (quantities.percent, 0, "0.00 %"),
        (quantities.count, 1_234_567, "1,234,567"),
        (quantities.count, 0, "0"),
        (quantities.number, 0.94174, "0.9417"),
        (quantities.number, -0.5, "-0.5000"),
    ],
)
def test_what_is_known_is_told_and_what_is_not_is_a_dash(tell, value, text):
    assert tell(value) == text
    assert tell(None) == "-"
