import json

from birnn_service.protocols.openapi import document


def test_the_document_is_whole() -> None:
    found = document("1.0", ["smiles@1"], 100)
    text = json.dumps(found)
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references == set(found["components"]["schemas"])
    operations = [operation["operationId"] for path in found["paths"].values() for operation in path.values()]
    assert len(operations) == len(set(operations))
    assert '"smiles@1"' in text
