"""What pnn-sweep does: searches (Optuna trials on validation data) and studies (grids of complete runs)."""
