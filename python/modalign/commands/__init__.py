"""The commands of ``modalign``, by what they are for; ``modalign.cli`` gathers them."""
