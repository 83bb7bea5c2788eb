"""The documentation site: pages from all over the repository, and a reference made from the code (`make docs`)."""
