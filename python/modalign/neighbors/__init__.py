"""The room of neighbors."""
