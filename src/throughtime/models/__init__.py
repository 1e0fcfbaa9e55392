"""Models of sequences: finite windows (Autoregressive) and latent states (LatentAutoregressive)."""
