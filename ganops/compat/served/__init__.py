"""What the import hook serves. Each file runs under the name that a codebase knows it by, or can be imported here."""
