"""understand.py FILE: reads a JSON array of KServe's resources, and prints what its SDK makes of each.

Fields that it does not know are gone then. Runs in an environment with the package kserve, and stands alone.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from kserve import ApiClient, models
from kubernetes import client as kubernetes

# Kubernetes' own kinds are taken as they are; the tests check them by Kubernetes' schemas.
for name in set(dir(kubernetes)) - set(dir(models)):
    setattr(models, name, object)
client = ApiClient()
understood = []
for manifest in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
    version = manifest["apiVersion"].rpartition("/")[2].capitalize()
    answer = SimpleNamespace(data=json.dumps(manifest))
    read = client.deserialize(answer, getattr(models, version + manifest["kind"]))
    understood.append(client.sanitize_for_serialization(read))
json.dump(understood, sys.stdout)
