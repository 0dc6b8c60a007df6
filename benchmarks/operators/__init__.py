"""What operators are told, and what that takes."""
