"""Process supervision: the zygote, the supervisors, their protocols and their clients."""
