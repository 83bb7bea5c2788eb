"""The access log: one line for a call that has ended, and never what it held."""

import logging

from birnn_service.call import Arrived, Call
from birnn_service.catalog import address_of
from birnn_service.errors import Code
from birnn_service.observe.logs import FIELDS, ids_of
from birnn_service.observe.notes import Notes
from birnn_service.tenants import tenant_of

# Under a name of its own, for those who sort logs. --log-level is not about it: --access-log has asked for it.
logger = logging.getLogger("birnn.access")
logger.setLevel(logging.INFO)


def log_access(method: str, incoming: Arrived, call: Call, notes: Notes, code: Code, seconds: float) -> None:
    """Write the line of a call."""
    fields: dict[str, object] = {"method": method, "code": code.name}
    if call.encoder is not None:
        fields["encoder"], fields["version"] = address_of(call.encoder)
    if notes.tokenizing:
        fields |= {"sequences": notes.sequences, "tokens": notes.tokens}
    fields["seconds"] = round(seconds, 6)
    if notes.received:
        fields["receive_seconds"] = round(notes.received - call.started, 6)
    if notes.tokenized:
        fields["tokenize_seconds"] = round(notes.tokenized - notes.tokenizing, 6)
    if (spent := call.spent) is not None:
        fields |= {
            "queue_seconds": round(spent.queue, 6),
            "compute_seconds": round(spent.compute, 6),
            "reply_seconds": round(seconds - spent.until, 6),
        }
    fields["caller"] = tenant_of(call.caller) or call.caller
    logger.info("call", extra={FIELDS: fields | ids_of(incoming, notes)})
