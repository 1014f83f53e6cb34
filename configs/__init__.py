"""Configurations of runs, one file a phase. The docstring of each holds the command and what it gave."""
