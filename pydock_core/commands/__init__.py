"""The command table, the command handlers, and the ``dock`` program."""
