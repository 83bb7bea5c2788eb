from tests.service.transports.http_exchange import exchange, post, serving, status


async def test_pages_of_listed_origins_may_call() -> None:
    async with serving(cors_origins=("https://app.example",)) as (_, port):
        asks = b"OPTIONS / HTTP/1.1\r\nConnection: close\r\nOrigin: %b\r\nAccess-Control-Request-Method: POST\r\n"
        asks += b"Access-Control-Request-Headers: authorization\r\n\r\n"
        reply = await exchange(port, asks % b"https://app.example")
        assert status(reply) == 204
        assert b"access-control-allow-origin: https://app.example\r\n" in reply
        assert b"access-control-allow-headers: authorization\r\n" in reply
        assert b"allow-origin" not in await exchange(port, asks % b"https://evil.example")
        assert b"access-control-allow-origin" in await exchange(port, post(b"", b"Origin: https://app.example"))
    async with serving() as (_, port):
        assert b"allow-origin" not in await exchange(port, post(b"", b"Origin: https://app.example"))
