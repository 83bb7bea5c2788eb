"""`python -m birnn`: the same as `birnn`."""

from birnn.cli.main import main

if __name__ == "__main__":
    main(prog_name="birnn")
