"""Everything that touches transformers; it is imported only here."""
