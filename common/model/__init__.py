"""An audio language model, its prompt, its input and its answer."""
