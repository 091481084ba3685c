"""The bare drivers doing the same durable work: the limit of what we could reach."""
