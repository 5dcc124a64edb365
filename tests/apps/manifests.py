# Checks manifests of Kubernetes against its own schemas, and prints them as one array in JSON.
#
#   python manifests.py FILE...

import json
import sys

import kubernetes_validate
import yaml

documents = []
for path in sys.argv[1:]:
    with open(path) as file:
        documents += [document for document in yaml.safe_load_all(file) if document]
for document in documents:
    name = f'{document.get("kind")} {document["metadata"]["name"]}'
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        sys.exit(f'{name}: {".".join(map(str, error.path))}: {error.message}')
print(json.dumps(documents))
