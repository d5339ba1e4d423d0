"""What every finding event must satisfy: our schema, OCSF's, and the size of 4 kB."""

import json
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from agent.alert.finding import MAX_BYTES, to_bytes

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "docs" / "schemas" / "finding-1.json"
OPEN = ROOT / "docs" / "schemas" / "open-1.json"
OCSF = ROOT / "tests" / "data" / "ocsf_detection_finding.schema.json"


@cache
def validator(path: Path) -> Draft202012Validator:
    """Checks instances against the schema in the file."""
    schema = json.loads(path.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_event(event: dict) -> dict:
    """The event, if it is a finding event as published."""
    validator(OWN).validate(event)
    validator(OCSF).validate(event)
    assert len(to_bytes(event)) <= MAX_BYTES
    return event
