"""Training by truncated or full BPTT, resumable to the bit."""
