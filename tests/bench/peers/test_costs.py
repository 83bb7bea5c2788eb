from bench.loads import Load
from bench.peers.comparison import EMPTY, FRONT
from bench.peers.costs import costs_table
from bench.peers.records import Record
from bench.peers.report import rows
from tests.bench.peers.samples import sample

BULK = Load("bulk", 32, 8)
MEASURED = {"server_us": 4000.0, "tokenize_us": 100.0, "engine_us": 3000.0, "reply_us": 60.0, "batch_rows": 24.0}


def record(server: str, load: Load, generator: str, facts: dict[str, float]) -> Record:
    return Record("round", 1, server, load, generator, {}, sample(100.0), facts=facts)


def test_parts_and_what_is_left_add_up_to_what_the_server_took() -> None:
    found = rows(
        [
            record("ours", FRONT, EMPTY, {"server_us": 200.0}),
            record("ours", BULK, "asyncio", MEASURED),
            record("Triton", BULK, "asyncio", {"server_us": 9000.0}),
        ]
    )
    text = costs_table(found)
    figures = "| 4,000 (125.0) | 200 (6.2) | 100 (3.1) | 3,000 (93.8) | 60 (1.9) | 640 (20.0) |"
    assert f"| ours | 32 sequences a call, 8 in flight | asyncio | 24.0 {figures}" in text
    assert "Triton" not in text


def test_over_http_what_was_not_measured_is_left_in_the_rest() -> None:
    found = rows(
        [
            record("ours", FRONT, EMPTY, {"server_us": 200.0}),
            record("ours", BULK, "asyncio, OpenAI", MEASURED),
        ]
    )
    assert "| 4,000 (125.0) |  | 100 (3.1) | 3,000 (93.8) |  | 900 (28.1) |" in costs_table(found)


def test_there_is_no_table_where_the_front_end_was_not_measured() -> None:
    assert costs_table(rows([record("ours", BULK, "asyncio", MEASURED)])) == ""
