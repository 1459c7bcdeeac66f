"""`ppd`: the commands, each group in a module. START HERE: `service.cli.commands`."""
