"""Output of commands in a notebook: live text, tables, diagrams of the store."""
