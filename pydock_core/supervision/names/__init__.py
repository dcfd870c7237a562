"""The name server in a container's network namespace: wire format, names files, redirection of port 53, the process."""
