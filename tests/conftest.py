"""What holds for every test."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("birnn", deadline=None)
settings.load_profile("birnn")


# A shell lets what it runs in the background ignore these, and so would the processes that tests start.
for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)


@pytest.fixture(scope="session", autouse=True)
def own_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers that tests start keep their measured costs here, not in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIRNN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
