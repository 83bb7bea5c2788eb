"""Which version of the service this is."""

from importlib.metadata import version


def server_version() -> str:
    """Version of the installed distribution."""
    return version("birnn-serving")
