"""What is compared with an earlier build of pagetide, by turns."""
