"""The runtime: OCI bundles, executors, the zygote and the supervisors."""
