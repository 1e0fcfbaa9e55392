"""Native loops beside the models: sampling, and the cross-entropy of symbols."""
