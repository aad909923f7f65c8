"""Model families: what each looks like, how it is built, and how it is read from its origin."""
