"""Pictures: reading, resizing, operations and views."""
