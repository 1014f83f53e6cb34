"""What people look at: progress, metrics, plots. Imports no room above the model."""
