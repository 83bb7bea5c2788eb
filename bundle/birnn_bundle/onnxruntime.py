"""onnxruntime, with its telemetry switched off: the only module that imports it.

Official builds report to Microsoft by default: since 1.29 those for Linux look up an events host, send what models look
like, and keep a device id and a database below `~/.cache/Microsoft`. onnxruntime reads the variable once, when it is
first used. It is set whatever was set before: a server that makes no connection its operator did not ask for must not
depend on what else sets variables.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

# On Windows telemetry goes through the system's event tracing, which heeds no variable.
ort.disable_telemetry_events()

__all__ = ["ort"]
