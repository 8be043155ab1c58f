"""The room of alignment."""
