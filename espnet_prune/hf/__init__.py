"""Everything that touches transformers; it is imported only here."""

TRANSFORMERS_FOLDER = "transformers"  # inside a saved ESPnet model of whole ones: that by itself
