"""What commands look like in a notebook: live text, tables, and pictures of what the store holds."""
