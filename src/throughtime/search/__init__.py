"""What `fit` does between data and run: views, candidates, budget, training, choice."""
