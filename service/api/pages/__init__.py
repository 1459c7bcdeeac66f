"""What people see: the quiz, the studio, and the documentation of the API."""
