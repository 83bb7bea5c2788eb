"""What operators may order: to load and to unload."""

from typing import Protocol


class Orders(Protocol):
    """Carries out orders, in this process or in another. A model is NAME, or NAME@VERSION for one version or alias."""

    async def load(self, model: str) -> None:
        """Look again, and load what is wanted of an encoder; returns once all of it is served.

        What was unloaded by an order is wanted again, and what was found broken is tried again.

        Raises:
            UnknownEncoderError: There is no such encoder or version.
            BrokenEncoderError: A version of it could not be loaded; says why.
        """

    async def unload(self, model: str) -> None:
        """Serve an encoder no longer, until it is ordered again or its files change; calls under way finish.

        Raises:
            UnknownEncoderError: Nothing of it is served.
        """
