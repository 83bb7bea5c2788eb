"""Generated stubs of protos/birnn/v1; `make protos` writes them."""
