"""The `birnn` command."""
