import pytest

from birnn_bundle.numerals import is_number, read_version


@pytest.mark.parametrize(("text", "version"), [("1", 1), ("10", 10), ("999999999", 999_999_999)])
def test_a_version_is_read(text: str, version: int) -> None:
    assert read_version(text) == version


@pytest.mark.parametrize(
    "text",
    ["", "0", "01", "+1", "-1", " 1", "1 ", "1\n", "1_0", "1e3", "1.0", "0x1", "١", "०", "²", "1٠", "9" * 10],
)
def test_what_spells_no_version_is_none(text: str) -> None:
    assert read_version(text) is None


def test_a_number_is_of_ascii_digits() -> None:
    assert is_number("007")
    assert not any(map(is_number, ["", "١", "²", "+1", "1_0", " 1"]))
