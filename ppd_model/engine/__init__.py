"""Serving: many people's jobs in one running batch. START HERE: `ppd_model.engine.engine`."""
