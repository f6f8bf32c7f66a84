"""The donor's whole audio span, put into the recipient's run."""
