"""Reading the files of others: what they hold becomes parts of a base bundle, or a style. Nothing in them is run."""
