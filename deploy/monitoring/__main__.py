"""Write all generated files of monitoring anew: `python -m deploy.monitoring`, or `make monitoring`."""

from deploy.monitoring.files import generated

for path, text in generated().items():
    path.write_text(text, encoding="utf-8")
