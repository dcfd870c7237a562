# An interactive POSIX shell reads this file through ENV (sh(1)). Defines dock if it is not on the PATH.
command -v dock >/dev/null 2>&1 || dock() { "$PYDOCK_PROGRAM" "$@"; }
