"""The command table, what each command does with the engine, and the ``dock`` program."""
