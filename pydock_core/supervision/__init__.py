"""What starts containers and stays with them: the zygote, supervisors, their protocols and their clients."""
