#!/bin/sh
# Build the wheel, install it with the gateway's pinned requirements alone into a fresh environment, and
# replay the demo with it from outside the checkout: what is shipped is what is tested.
set -eu
python=$1
root=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m build --wheel --no-isolation --outdir "$work/dist" . >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
for minor in 3.11 3.13; do
    interpreter=$(command -v "python$minor" || true)
    # pyenv's shims exist for versions that are not active
    if [ -z "$interpreter" ] || ! "$interpreter" -c '' 2>/dev/null; then
        interpreter=$(find "${PYENV_ROOT:-$HOME/.pyenv}/versions" -path "*/$minor*/bin/python$minor" 2>/dev/null | head -n 1)
    fi
    [ -n "$interpreter" ] || { echo "wheel test: no Python $minor here, left out"; continue; }
    "$interpreter" -m venv "$work/$minor"
    "$work/$minor/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r requirements/gateway.txt
    "$work/$minor/bin/python" -m pip install --quiet --no-deps "$work"/dist/wardwatch-*.whl
    (
        cd "$work"
        "$work/$minor/bin/wardwatch" --version
        "$work/$minor/bin/wardwatch" bundle show >/dev/null
        "$work/$minor/bin/wardwatch" replay --json "$root/demo/ward.pcap.gz" >"findings-$minor.jsonl" 2>/dev/null
        test -s "findings-$minor.jsonl"
    )
    echo "wheel on Python $minor: $(wc -l <"$work/findings-$minor.jsonl") finding events"
done
if [ -f "$work/findings-3.11.jsonl" ] && [ -f "$work/findings-3.13.jsonl" ]; then
    "$python" - "$work/findings-3.11.jsonl" "$work/findings-3.13.jsonl" <<'PY'
import json, sys

def uids(path):
    with open(path) as lines:
        return [(e["finding_info"]["uid"], e["activity_id"], e["severity_id"]) for e in map(json.loads, lines)]

assert uids(sys.argv[1]) == uids(sys.argv[2]), "the two Pythons disagree about the findings"
print("both Pythons find the same")
PY
fi
