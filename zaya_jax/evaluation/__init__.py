"""Scores from stored samples: grading, averages and their errors, comparisons, tables and pages."""
