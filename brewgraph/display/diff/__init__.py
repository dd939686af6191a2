"""What differs between two specs in meaning."""
