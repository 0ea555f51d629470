"""The HTML report: the page, its scripts, and the pictures beside it."""
