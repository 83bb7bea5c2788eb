import pytest

from birnn_service.errors import StartupError
from birnn_service.repository.version_policy import read_policy
from birnn_service.settings_reader import load_settings


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        ("all", "smiles", [3, 2, 1]),
        ("latest:2", "smiles", [3, 2]),
        ("latest:9", "smiles", [3, 2, 1]),
        ("1,3", "smiles", [3, 1]),
        ("7", "smiles", []),
        ("smiles=1, 2 ; text=latest:1", "smiles", [2, 1]),
        ("smiles=1,2;text=latest:1", "text", [3]),
        ("smiles=1,2;text=latest:1", "protein", [3, 2, 1]),
        ("latest:1;smiles=all", "smiles", [3, 2, 1]),
        ("smiles=all;latest:1", "text", [3]),
    ],
)
def test_the_versions_that_are_wanted(text: str, name: str, wanted: list[int]) -> None:
    assert read_policy(text).of(name).wanted([2, 1, 3], []) == wanted


def test_earlier_versions_stand_in_for_bad_ones_where_the_latest_are_wanted() -> None:
    rule = read_policy("latest:2").others
    assert rule.wanted([1, 2, 3, 4], [4]) == [4, 3, 2]
    assert rule.wanted([1, 2, 3, 4], [1]) == [4, 3]
    assert rule.wanted([1, 2], [1, 2]) == [2, 1]
    assert read_policy("2,3").others.wanted([1, 2, 3], [3]) == [3, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "says no versions"),
        ("latest", "says no versions"),
        ("latest:0", "says no versions"),
        ("1,", "says no versions"),
        ("01", "says no versions"),
        ("smiles=", "says no versions"),
        ("=1", "is no name"),
        ("Smiles=1", "is no name"),
        ("smiles=1;smiles=2", "two rules for smiles"),
        ("all;1", "two rules for all encoders"),
        ("1;" * 6000, "characters"),
    ],
)
def test_what_is_no_policy_stops_the_start_and_says_what_to_write(text: str, words: str) -> None:
    with pytest.raises(StartupError, match=words):
        load_settings({"versions": text})
