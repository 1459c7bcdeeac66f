"""The pairs that synthetic users answer: pictures, scores, labels."""
