"""What `validate` checks and reports."""
