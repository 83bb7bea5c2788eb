"""Both clients, asked the same."""

import asyncio
from typing import Any, TypeAlias

from birnn import AsyncClient, Client

Kind: TypeAlias = type[Client] | type[AsyncClient]
CLIENTS = (Client, AsyncClient)


def ask(client: Client | AsyncClient, method: str, *arguments: Any, **options: Any) -> Any:
    """What a method gives; of a stream the list of its parts."""
    if isinstance(client, Client):
        result = getattr(client, method)(*arguments, **options)
        return list(result) if method.startswith("stream") else result

    async def once() -> Any:
        result = getattr(client, method)(*arguments, **options)
        return [part async for part in result] if method.startswith("stream") else await result

    return asyncio.run(once())
