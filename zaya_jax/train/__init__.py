"""Training: loss, router balancing, optimizer, step."""
