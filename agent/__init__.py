"""Wardwatch's agent: it listens on a ward's gateway and forwards alerts. It never transmits on what it watches.

`pipeline.py` is the page to read first.
"""

import os

# onnxruntime's wheels send telemetry unless this stands in the environment before their first
# import; the API call comes too late. Set, not defaulted: a site cannot turn it on by accident.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
