"""What a reader sees: tables, figures, published numbers, differences."""
