"""The new cache inside of other libraries."""
