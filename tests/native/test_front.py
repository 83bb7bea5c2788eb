"""The gRPC front end alone, with clients that keep to HTTP/2 by the letter only."""

import time

from birnn_native.front import News, Order, command_of
from tests.native.front_serving import END_STREAM, Client, front, head, message


def test_a_malformed_head_does_not_end_its_connection() -> None:
    """A head that HTTP/2 refuses is over: it does not count as one that takes too long."""
    with front(head_seconds=0.2) as server:
        client = Client(server.port)
        client.socket.sendall(head(1, **{":scheme": ""}))
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            client.ping()
            time.sleep(0.05)


def test_a_call_is_closed_once_its_reply_is_gone_whatever_else_is_sent() -> None:
    """What is held for a reply is let go when its client has it, though the connection has other things to write."""
    with front() as server:
        client = Client(server.port)
        reply = bytes(4 << 20)
        for stream in (1, 3, 5, 7, 9, 11):
            client.socket.sendall(head(stream) + message(stream, 10))
        server.until(lambda events: sum(bool(event[1] & News.MESSAGE) for event in events) == 6)
        opened = [event[0] for event in server.events if event[1] & News.OPENED]
        for id_ in opened[1:]:
            server.front.send(command_of(id_, Order.REPLY, message=reply))
        server.front.send(command_of(opened[0], Order.REPLY, message=b"short"))
        while True:
            _, flags, stream, _ = client.read()
            if stream == 1 and flags & END_STREAM:
                break
        server.until(lambda events: any(event[:2] == (opened[0], News.CLOSED) for event in events))
        client.socket.close()
        server.until(lambda _: server.count(News.CLOSED) == 6)
