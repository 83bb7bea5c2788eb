from birnn_service.repository.version import Version


def test_files_count_once_two_looks_see_the_same() -> None:
    version = Version(("smiles", "1"), "a")
    version.see("a")
    assert not version.is_settled
    version.see("b")
    assert not version.is_settled
    version.see("b")
    assert version.is_settled
    assert version.is_untried


def test_files_that_were_tried_are_tried_again_when_they_change() -> None:
    version = Version(("smiles", "1"), "a")
    version.tried = "a"
    version.see("a")
    version.see("a")
    assert not version.is_untried
    version.see("b")
    assert version.is_untried


def test_what_an_operator_unloaded_stays_unloaded_until_its_files_change() -> None:
    version = Version(("smiles", "1"), "a")
    version.unloaded = True
    version.see("a")
    assert version.unloaded
    version.see("b")
    assert not version.unloaded


def test_a_version_that_is_served_may_be_missing_for_one_look() -> None:
    version = Version(("smiles", "1"), "a")
    version.miss()
    assert version.is_gone
    version.encoder = object()  # type: ignore[assignment]
    assert not version.is_gone
    version.see("a")
    version.miss()
    assert not version.is_gone
    version.miss()
    assert version.is_gone
