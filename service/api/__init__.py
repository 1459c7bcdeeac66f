"""HTTP: one router per resource. START HERE: `service.api.app`."""
