#!/bin/sh
# Hash-pinned requirements for x86-64 and aarch64 Linux, Python 3.11 to 3.13, without an index address.
set -eu
compile() {
    out=$1
    shift
    uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
        --no-emit-find-links --custom-compile-command "make lock" \
        --constraint requirements/constraints.in "$@" --output-file "requirements/$out.txt" pyproject.toml
}
compile gateway
compile convert --extra convert
compile dev --extra convert --group dev
