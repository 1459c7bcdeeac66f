"""The objective, the model it trains and the state of a run; train_dpo.py puts them together."""
