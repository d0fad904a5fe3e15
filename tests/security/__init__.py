"""The threat table's rows as attacks."""
