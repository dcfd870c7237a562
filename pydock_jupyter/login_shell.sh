# Read by an interactive POSIX shell through ENV (sh(1)): defines dock if the PATH does not lead to it.
command -v dock >/dev/null 2>&1 || dock() { "$PYDOCK_PROGRAM" "$@"; }
