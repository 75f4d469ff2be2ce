"""Names of endpoints: what is known (records), how it is asked and told (message), and who answers where (server)."""
