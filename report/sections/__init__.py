"""Parts of the report with more than one run in them."""
