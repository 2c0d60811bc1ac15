"""What `rankflow setup` runs once inside the Python environment."""
