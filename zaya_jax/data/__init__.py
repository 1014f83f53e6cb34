"""Text and tokens on their way to a training step."""
