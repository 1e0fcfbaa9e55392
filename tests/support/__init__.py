"""What several test modules share: models that are known, cases, small runs."""
