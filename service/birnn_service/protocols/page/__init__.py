"""The page at / of the HTTP port."""
