"""The widgets: containers and images, live, in a notebook's output."""
