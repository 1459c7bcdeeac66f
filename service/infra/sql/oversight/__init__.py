"""What those who run the service see of it: reports of pictures, and who did what."""
