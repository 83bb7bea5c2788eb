"""Whatever is logged, a record is one line of JSON, or begins with its time, and no further line does."""

import json
import logging
import re
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.quoting import printable
from birnn_service.observe.logs import FIELDS, INDENT, JsonLines, TextLines

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# Half of a surrogate pair is what an undecodable file name becomes.
ANYTHING = st.text(st.one_of(st.characters(), st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])), max_size=40)
FORGED = "\n2026-01-01 00:00:00,000 INFO all is well\r\x1b[2J\u2028{}"
TEXT = ANYTHING | st.just(FORGED)
VALUES = st.dictionaries(st.sampled_from(["request_id", "caller", "method"]), TEXT)


def record_of(message: str, fields: Mapping[str, str], failure: str | None) -> logging.LogRecord:
    error = None if failure is None else ValueError(failure)
    info = None if error is None else (ValueError, error, None)
    record = logging.LogRecord("birnn.test", logging.INFO, __file__, 1, "%s", (message,), info)
    record.__dict__[FIELDS] = fields
    return record


@given(TEXT, VALUES, st.none() | TEXT)
def test_no_caller_can_write_a_line_of_text_that_looks_like_a_record(
    message: str, fields: Mapping[str, str], failure: str | None
) -> None:
    text = TextLines("engine").format(record_of(message, fields, failure))
    first, *further = text.split("\n")
    assert TIME.match(first)
    assert all(line.startswith(INDENT) for line in further)
    assert bool(further) == (failure is not None)
    assert all(line.isprintable() for line in (first, *further))
    # Whatever a reader takes for the end of a line.
    assert len(text.splitlines()) == 1 + len(further)


@given(TEXT, VALUES, st.none() | TEXT)
def test_a_record_is_one_object_of_json(message: str, fields: Mapping[str, str], failure: str | None) -> None:
    text = JsonLines("frontend-1").format(record_of(message, fields, failure))
    assert text.isascii()
    assert text.isprintable()
    found = json.loads(text)
    assert RFC3339.fullmatch(found.pop("time"))
    assert (found.pop("level"), found.pop("logger"), found.pop("process")) == ("info", "birnn.test", "frontend-1")
    assert found.pop("message") == printable(message)
    if failure is not None:
        assert found.pop("exception") == printable(f"ValueError: {failure}" if failure else "ValueError")
    assert found == {name: printable(value) for name, value in fields.items()}


def test_numbers_stay_numbers_and_front_ends_have_their_names() -> None:
    record = record_of("call", {}, None)
    record.__dict__[FIELDS] = {"seconds": 0.25, "request_id": 'a "b"', "path": ""}
    assert json.loads(JsonLines("engine").format(record))["seconds"] == 0.25
    written = TextLines("frontend-2").format(record)
    assert written.endswith('INFO front-end 2: call seconds=0.25 request_id="a \\"b\\"" path=""')
