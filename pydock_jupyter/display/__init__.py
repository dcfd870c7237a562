"""What commands look like in a notebook: live text, and tables."""
