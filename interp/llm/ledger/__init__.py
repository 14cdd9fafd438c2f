"""Every reply is durable before it is used."""
