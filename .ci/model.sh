#!/bin/sh
# Rebuild the shipped bundle from the committed matrices; the same matrices give the same bytes.
set -eu
bin=$1
created=2026-11-23
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$bin/wardwatch-convert" train datasets/ip-1 --work "$work"
"$bin/wardwatch-convert" quantize datasets/ip-1 --work "$work"
"$bin/wardwatch-convert" evaluate datasets/ip-1 --work "$work" --results docs/results >/dev/null
"$bin/wardwatch-convert" pack --work "$work" --created "$created" --shipped
