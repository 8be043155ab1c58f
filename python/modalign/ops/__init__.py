"""The operators: schema, fake, gradient and table of implementations, one file an operation."""
