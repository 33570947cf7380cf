#!/bin/bash
# In front of the runtime for runc's suite: "spec" is not of the OCI, and makes the configurations that the tests change. The suite's own
# runc does that.
for word in "$@"; do
	case $word in
	spec) exec "$JUDGE_RUNC" "$@" ;;
	-* | */state) ;;
	*) break ;;
	esac
done
exec "$JUDGE_RUNTIME" "$@"
