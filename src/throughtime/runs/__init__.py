"""A run: the outcome of `fit`, in memory and as a folder."""
