"""The room of encoders."""
