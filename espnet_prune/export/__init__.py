"""Export: what a saved model is carried away as."""
