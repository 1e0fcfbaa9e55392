"""What a fitted model is used for: scores, forecasts, samples."""
