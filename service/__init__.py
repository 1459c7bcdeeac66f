"""The web service: four choices in, pictures in a person's own taste out."""
