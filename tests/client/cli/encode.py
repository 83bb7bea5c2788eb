"""`birnn encode`, called in this process."""

from click.testing import CliRunner, Result

from birnn.cli.main import main


def encode(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["encode", *arguments], input=stdin)
