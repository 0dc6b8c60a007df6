"""What a guest tells of its memory: the script that it runs, and the reader of what that writes."""
