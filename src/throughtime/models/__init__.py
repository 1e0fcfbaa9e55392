"""Models of sequences: finite orders (Autoregressive) and latent states (LatentAutoregressive)."""
