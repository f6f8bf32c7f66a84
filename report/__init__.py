"""The report that people read, built from the CSVs of both experiments."""
