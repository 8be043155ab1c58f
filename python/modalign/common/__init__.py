"""The room of common."""
