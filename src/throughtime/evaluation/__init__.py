"""Evaluation on data that no model has seen; `results` has the values that it gives."""
