"""The room of figures."""
