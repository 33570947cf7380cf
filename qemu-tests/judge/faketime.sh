#!/bin/sh
# faketime TIME PROGRAM [ARGUMENT...]: gives the program a time, as the suite's faketime(1) does. That works on the C library, which a Go program
# has not.
FAKETIME_NOW=$(date -u -d "$1" +%Y-%m-%dT%H:%M:%SZ) || exit 1
export FAKETIME_NOW
shift
exec "$@"
