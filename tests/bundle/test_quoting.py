import pytest

from birnn_bundle.quoting import one_line, shown, told, without_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smiles", "'smiles'"),
        ("a'b", '"a\'b"'),
        ("\x1b[31m\n\u202e", r"'\x1b[31m\n\u202e'"),
        ("\udcff", r"'\udcff'"),
        ("é١", "'é١'"),
        ("x" * 60, f"'{'x' * 60}'"),
        ("x" * 20_000, f"'{'x' * 60}'... (20000 characters)"),
    ],
)
def test_what_is_shown_is_quoted_escaped_and_short(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(text).isprintable()


def test_harmless_names_are_told_as_they_are_and_others_in_quotes() -> None:
    assert told("weights.bin") == "weights.bin"
    assert told("a b") == "'a b'"
    assert told("n" * 255) == f"'{'n' * 60}'... (255 characters)"


def test_one_line_keeps_what_can_be_printed_and_escapes_the_rest() -> None:
    assert one_line("a\nb\t'é'\x00") == r"a\nb\t'é'\x00"
    assert one_line("x" * 30, most=10) == "xxxxxxxxxx... (30 characters)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot read /srv/models/a/1/w.bin: gone", "cannot read w.bin: gone"),
        ("'/etc/passwd' and (/usr/lib/x.so)", "'passwd' and (x.so)"),
        ("smiles/1, tokens and/or N/A 1 / 2", "smiles/1, tokens and/or N/A 1 / 2"),
        ("w.bin in s3://team/models is not", "w.bin in ... is not"),
        ("GET http://10.0.0.1:9000/b/k?X-Sig=1, twice", "GET ..., twice"),
        ("https://models.example/a: no", "...: no"),
    ],
)
def test_paths_are_shortened_to_their_last_part(text: str, expected: str) -> None:
    assert without_paths(text) == expected
