"""Sentences of the report in English and Chinese: one for each finding, equal in content; short texts are in words.py."""
