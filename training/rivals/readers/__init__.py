"""What four answers can be made into without a language model, a file for each rival."""
