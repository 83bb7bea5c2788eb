"""Generated stubs of protos/birnn/openinference; `make protos` writes them.

Not imported by the client: two copies of the `inference.*` messages (ours and tritonclient's) cannot live in one process.
"""
